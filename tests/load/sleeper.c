// Sleeps COUNT times 20 ms: one switch out in state sleeping and one wait for a CPU each.
//   sleeper [COUNT]
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : 100;
	struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};

	for (int i = 0; i < count; i++)
		nanosleep(&pause, NULL);
	return 0;
}
