// Lives for about 5 ms, all of it in blip_work.
//   blip
#include <time.h>

static volatile unsigned long sink;

static __attribute__((noinline)) void blip_work(void)
{
	struct timespec start, now;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		for (int i = 0; i < 10000; i++)
			sink = sink * 6364136223846793005ul + 1;
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((now.tv_sec - start.tv_sec) * 1000000000l + now.tv_nsec - start.tv_nsec < 5000000);
	__asm__ volatile("");
}

int main(void)
{
	blip_work();
	return 0;
}
