// A service that answers a request every 5 ms with 1 ms of work, for SECONDS or until SIGTERM. Prints how late the
// slowest hundredth was.
//   shop [SECONDS]
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PERIOD_NS 5000000
#define WORK_NS 1000000

static volatile sig_atomic_t ended;

static void end(int number)
{
	ended = number;
}

static long long now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

__attribute__((noinline)) static void answer(void)
{
	long long end = now(CLOCK_THREAD_CPUTIME_ID) + WORK_NS;

	while (now(CLOCK_THREAD_CPUTIME_ID) < end)
		;
}

static int by_size(const void *a, const void *b)
{
	long long x = *(const long long *)a, y = *(const long long *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	int requests = (argc > 1 ? atoi(argv[1]) : 5) * 200;
	long long *took = calloc(requests, sizeof(*took)), due = now(CLOCK_MONOTONIC);

	int i = 0;

	if (!took || requests < 1)
		return 1;
	signal(SIGTERM, end);
	for (; i < requests && !ended; i++) {
		struct timespec next = {due / 1000000000, due % 1000000000};

		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
		answer();
		took[i] = now(CLOCK_MONOTONIC) - due;
		due += PERIOD_NS;
		if (due < now(CLOCK_MONOTONIC)) // a request that could not wait is turned away
			due = now(CLOCK_MONOTONIC);
	}
	requests = i;
	qsort(took, requests, sizeof(*took), by_size);
	printf("shop: half of the requests took %.1f ms, one in a hundred more than %.1f ms\n",
	       took[requests / 2] / 1e6, took[requests - 1 - requests / 100] / 1e6);
}
