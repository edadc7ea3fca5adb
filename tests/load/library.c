// A library with one exported function, whose name is the macro NAME: burns a fifth of a second.
//   cc -DNAME=alpha_work -shared -fPIC
#include <time.h>

static volatile unsigned long sink;

void NAME(void)
{
	struct timespec start, now;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		for (int i = 0; i < 10000; i++)
			sink = sink * 6364136223846793005ul + 1;
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((now.tv_sec - start.tv_sec) * 1000000000l + now.tv_nsec - start.tv_nsec < 200000000);
	__asm__ volatile("");
}
