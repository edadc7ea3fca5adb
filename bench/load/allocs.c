// Bound by its allocator: pieces of 16 to 4,000 bytes, a window of 1,000 of them at a time. Prints the nanoseconds that
// a malloc and a free took together.
//   allocs [PAIRS [wait]]
// With "wait" it begins when it is sent a byte.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void *window[1000];

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

int main(int argc, char **argv)
{
	long pairs = argc > 1 ? atol(argv[1]) : 1000000;
	unsigned random = 1;
	char byte;
	double start;

	if (argc > 2 && read(0, &byte, 1) != 1)
		return 1;
	start = now();
	for (long i = 0; i < pairs; i++) {
		void **slot = &window[i % 1000];

		free(*slot);
		random = random * 1664525 + 1013904223;
		*slot = malloc(16 + (random >> 8) % 3985);
		memset(*slot, 1, 16);
	}
	printf("%.1f\n", (now() - start) / pairs);
	return 0;
}
