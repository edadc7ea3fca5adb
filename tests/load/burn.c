// Burns CPU for SECONDS, 70 % of it in burn_seventy and 30 % in burn_thirty. The shares are counted work of the
// same kind, so that they hold on any machine. Prints the CPU seconds it used.
//   burn [SECONDS]
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static volatile unsigned long sink;

static __attribute__((noinline)) void burn_seventy(long rounds)
{
	for (long i = 0; i < rounds; i++)
		sink = sink * 6364136223846793005ul + 1;
	__asm__ volatile("");
}

static __attribute__((noinline)) void burn_thirty(long rounds)
{
	for (long i = 0; i < rounds; i++)
		sink = sink * 6364136223846793005ul + 1;
	__asm__ volatile("");
}

static double seconds(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	double end = seconds(CLOCK_MONOTONIC) + (argc > 1 ? atof(argv[1]) : 1);

	while (seconds(CLOCK_MONOTONIC) < end) {
		// Short next to a sample's period, so that the two never beat against each other.
		burn_seventy(7000);
		burn_thirty(3000);
	}
	printf("%.3f\n", seconds(CLOCK_PROCESS_CPUTIME_ID));
	return 0;
}
