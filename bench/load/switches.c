// Two threads on each of the first CPUS CPUs hand the CPU to each other for SECONDS, a wakeup and a switch each time:
// RATE switches a second on each CPU, 0 for as many as it can. Prints the switches that were made and the seconds that
// it took.
//   switches SECONDS RATE CPUS
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MOST 256

static double length, rate;
static struct {
	_Alignas(64) atomic_int turn;
	atomic_int over;
} cpus[MOST];

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void *hand(void *number)
{
	long cpu = (long)number / 2, me = (long)number % 2, hands = 0;
	atomic_int *turn = &cpus[cpu].turn;
	double start = now(), t;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (pthread_setaffinity_np(pthread_self(), sizeof(set), &set))
		exit(1);
	while (!cpus[cpu].over) {
		while (*turn != me)
			syscall(SYS_futex, turn, FUTEX_WAIT_PRIVATE, 1 - me, NULL);
		// One of the two looks at the clock, now and then.
		if (!me && ++hands % 16 == 0) {
			t = now() - start;
			if (t > length)
				cpus[cpu].over = 1;
			else if (rate > 0 && 2 * hands > t * rate)
				nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
		}
		*turn = 1 - me;
		syscall(SYS_futex, turn, FUTEX_WAKE_PRIVATE, 1);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	long used = argc > 3 ? atol(argv[3]) : 1;
	pthread_t threads[2 * MOST];
	struct rusage usage;
	double start = now();

	length = argc > 1 ? atof(argv[1]) : 1;
	rate = argc > 2 ? atof(argv[2]) : 0;
	if (used < 1 || used > MOST)
		return 2;
	for (long i = 0; i < 2 * used; i++)
		if (pthread_create(&threads[i], NULL, hand, (void *)i))
			return 1;
	for (long i = 0; i < 2 * used; i++)
		pthread_join(threads[i], NULL);
	getrusage(RUSAGE_SELF, &usage);
	printf("%ld %.3f\n", usage.ru_nvcsw + usage.ru_nivcsw, now() - start);
	return 0;
}
