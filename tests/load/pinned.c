// Two processes pinned on one CPU for SECONDS: "busy busy" both burn, so each waits for what the other runs;
// "busy sleepy" one burns and one sleeps 5 ms and works 1 ms in turn. Prints a line each: role, pid, wall ns, CPU ns.
//   pinned CPU SECONDS ROLE ROLE
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long nanoseconds(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * 1000000000l + now.tv_nsec;
}

static void play(const char *role, long length)
{
	struct timespec pause = {.tv_nsec = 5 * 1000 * 1000};
	long start = nanoseconds(CLOCK_MONOTONIC), cpu = nanoseconds(CLOCK_PROCESS_CPUTIME_ID);

	while (nanoseconds(CLOCK_MONOTONIC) - start < length) {
		if (!strcmp(role, "sleepy")) {
			long work = nanoseconds(CLOCK_PROCESS_CPUTIME_ID);

			nanosleep(&pause, NULL);
			while (nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - work < 1000000)
				;
		}
	}
	printf("%s %d %ld %ld\n", role, getpid(), nanoseconds(CLOCK_MONOTONIC) - start,
	       nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
	exit(0);
}

int main(int argc, char **argv)
{
	cpu_set_t set;
	int failed = 0, status;

	if (argc != 5)
		return 2;
	CPU_ZERO(&set);
	CPU_SET(atoi(argv[1]), &set);
	if (sched_setaffinity(0, sizeof(set), &set)) {
		perror("sched_setaffinity");
		return 1;
	}
	for (int i = 3; i < 5; i++)
		if (!fork())
			play(argv[i], (long)(atof(argv[2]) * 1e9));
	while (wait(&status) > 0)
		failed |= status;
	return failed != 0;
}
