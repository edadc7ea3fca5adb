// Burns CPU for SECONDS at the bottom of fifteen functions, one called by the other: deep_01 ... deep_15. With `qsort`
// the way from deep_07 to deep_08 leads through libc, which calls back. No call is the last thing that a function does,
// so each has a frame.
// With `kernel` the bottom is a system call that takes long.
//   deep [SECONDS [plain|qsort|kernel]]
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile unsigned long sink;
static int through_libc, zeroes = -1;
static char buffer[1 << 20];

static __attribute__((noipa)) void deep_15(long rounds)
{
	if (zeroes >= 0)
		sink += read(zeroes, buffer, sizeof(buffer));
	for (long i = 0; zeroes < 0 && i < rounds; i++)
		sink = sink * 6364136223846793005ul + 1;
	__asm__ volatile("");
}

// Locals of different sizes, so that frames differ and none is where another's would be.
#define DEEP(name, next, words)                                                                                        \
	static __attribute__((noipa)) void name(long rounds)                                                           \
	{                                                                                                              \
		volatile long local[words];                                                                            \
                                                                                                                       \
		local[0] = rounds;                                                                                     \
		next(local[0]);                                                                                        \
		sink += local[0];                                                                                      \
		__asm__ volatile("");                                                                                  \
	}

DEEP(deep_14, deep_15, 3)
DEEP(deep_13, deep_14, 10)
DEEP(deep_12, deep_13, 1)
DEEP(deep_11, deep_12, 40)
DEEP(deep_10, deep_11, 2)
DEEP(deep_09, deep_10, 7)
DEEP(deep_08, deep_09, 5)

static long wanted;

static int compare(const void *a, const void *b)
{
	deep_08(wanted);
	return *(const int *)a - *(const int *)b;
}

static __attribute__((noipa)) void deep_07(long rounds)
{
	int two[2] = {2, 1};

	if (through_libc) {
		wanted = rounds;
		qsort(two, 2, sizeof(two[0]), compare);
	} else {
		deep_08(rounds);
	}
	sink += two[0];
	__asm__ volatile("");
}

DEEP(deep_06, deep_07, 6)
DEEP(deep_05, deep_06, 12)
DEEP(deep_04, deep_05, 1)
DEEP(deep_03, deep_04, 33)
DEEP(deep_02, deep_03, 4)
DEEP(deep_01, deep_02, 8)

int main(int argc, char **argv)
{
	struct timespec now;
	double end, at;

	through_libc = argc > 2 && !strcmp(argv[2], "qsort");
	if (argc > 2 && !strcmp(argv[2], "kernel"))
		zeroes = open("/dev/zero", O_RDONLY);
	clock_gettime(CLOCK_MONOTONIC, &now);
	end = now.tv_sec + now.tv_nsec / 1e9 + (argc > 1 ? atof(argv[1]) : 1);
	do {
		deep_01(2000000);
		clock_gettime(CLOCK_MONOTONIC, &now);
		at = now.tv_sec + now.tv_nsec / 1e9;
	} while (at < end);
	return 0;
}
