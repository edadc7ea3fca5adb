// Two processes pass a byte to and fro through pipes for SECONDS: context switches and wakeups. Prints the round trips.
//   pingpong [SECONDS] [ROUND TRIPS A SECOND, 0 = as fast as it goes]
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	double length = argc > 1 ? atof(argv[1]) : 1, rate = argc > 2 ? atof(argv[2]) : 0, start = now();
	int there[2], back[2];
	long trips = 0;
	char byte = 0;

	if (pipe(there) || pipe(back))
		return 1;
	if (!fork()) {
		close(there[1]);
		close(back[0]);
		while (read(there[0], &byte, 1) == 1 && write(back[1], &byte, 1) == 1)
			;
		_exit(0);
	}
	close(there[0]);
	close(back[1]);
	while (now() - start < length && write(there[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1) {
		trips++;
		if (rate > 0 && trips > (now() - start) * rate)
			usleep(1000);
	}
	close(there[1]);
	wait(NULL);
	printf("%ld\n", trips);
	return 0;
}
