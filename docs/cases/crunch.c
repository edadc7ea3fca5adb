// A batch job: THREADS threads that only compute, for SECONDS.
//   crunch [THREADS] [SECONDS]
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static volatile unsigned long sink;

__attribute__((noinline)) static void sum_up(long rounds)
{
	for (long i = 0; i < rounds; i++)
		sink = sink * 6364136223846793005ul + 1;
	__asm__ volatile("");
}

static void *work(void *arg)
{
	for (;;)
		sum_up(1000000);
	return arg;
}

int main(int argc, char **argv)
{
	int threads = argc > 1 ? atoi(argv[1]) : 3;

	for (int i = 0; i < threads; i++) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, work, NULL))
			return 1;
	}
	sleep(argc > 2 ? atoi(argv[2]) : 5);
	return 0;
}
