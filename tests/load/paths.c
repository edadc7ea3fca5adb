// Two threads on one CPU hand it to each other, COUNT times each, EACH times from the same stack and then from another:
// of 18 functions one after the other each is one of two, as the bits of a number say. Registers are the same in all of
// them. Prints how often they did.
//   paths COUNT [EACH]
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DEPTH = 18 };

static long count, each = 1;
static atomic_int turn;

static void hand(int me)
{
	turn = 1 - me;
	syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1);
	while (turn != me)
		syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, 1 - me, NULL);
}

static void zero(unsigned long way, int depth, int me);
static void one(unsigned long way, int depth, int me);

// What comes behind the call keeps its frame.
#define STEP(name)                                                                                                     \
	__attribute__((noinline)) static void name(unsigned long way, int depth, int me)                               \
	{                                                                                                              \
		if (depth == DEPTH)                                                                                    \
			hand(me);                                                                                      \
		else if (way >> depth & 1)                                                                             \
			one(way, depth + 1, me);                                                                       \
		else                                                                                                   \
			zero(way, depth + 1, me);                                                                      \
		__asm__ volatile("" ::: "memory");                                                                     \
	}

STEP(zero)
STEP(one)

static void *work(void *number)
{
	long me = (long)number, i;

	for (i = 0; i < count; i++)
		one(2 * (i / each) + me, 0, me);
	// The other one may wait for this one's last turn.
	turn = 1 - me;
	syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t other;
	cpu_set_t set;

	if (argc < 2)
		return 2;
	count = atol(argv[1]);
	if (argc > 2)
		each = atol(argv[2]);
	if (each < 1)
		return 2;
	CPU_ZERO(&set);
	CPU_SET(0, &set);
	if (sched_setaffinity(0, sizeof(set), &set) || pthread_create(&other, NULL, work, (void *)1))
		return 1;
	work(NULL);
	pthread_join(other, NULL);
	printf("pid %d\nwaits %ld\n", getpid(), 2 * count);
	return 0;
}
