// COUNT processes, each of which sleeps to the next multiple of 4 ms and then works 0.03 to 0.09 ms: their waits for
// the CPU are as long as the others' work, spread from microseconds to milliseconds.
//   crowd SECONDS COUNT
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BEAT = 4 * 1000 * 1000 };

static long nanoseconds(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * 1000000000l + now.tv_nsec;
}

static void one(long end, unsigned int seed)
{
	for (;;) {
		long now = nanoseconds(CLOCK_MONOTONIC), next = (now / BEAT + 1) * BEAT;
		struct timespec until = {.tv_sec = next / 1000000000, .tv_nsec = next % 1000000000};
		long work;

		if (next > end)
			exit(0);
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
		work = nanoseconds(CLOCK_PROCESS_CPUTIME_ID) + 30000 + rand_r(&seed) % 60000;
		while (nanoseconds(CLOCK_PROCESS_CPUTIME_ID) < work)
			;
	}
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	long end = nanoseconds(CLOCK_MONOTONIC) + (long)(atof(argv[1]) * 1e9);

	for (int i = 0; i < atoi(argv[2]); i++)
		if (!fork())
			one(end, i);
	while (wait(NULL) > 0)
		;
	return 0;
}
