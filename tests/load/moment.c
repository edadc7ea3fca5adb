// Prints a word and this moment on CLOCK_MONOTONIC, CLOCK_BOOTTIME and CLOCK_REALTIME, in ns.
//   moment WORD
#include <stdio.h>
#include <time.h>

static long long nanoseconds(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

int main(int argc, char **argv)
{
	printf("%s %lld %lld %lld\n", argc > 1 ? argv[1] : "", nanoseconds(CLOCK_MONOTONIC),
	       nanoseconds(CLOCK_BOOTTIME), nanoseconds(CLOCK_REALTIME));
	return 0;
}
