// COUNT threads that begin as fast as one thread can make them, and sleep until standard input ends. Prints how many
// there are.
//   threads COUNT
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void *sleeps(void *arg)
{
	pause();
	return arg;
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : 1000, made = 0;
	pthread_attr_t attr;
	pthread_t thread;
	char byte;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 16384);
	while (made < count && !pthread_create(&thread, &attr, sleeps, NULL))
		made++;
	printf("threads %d\n", made);
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
	_exit(0);
}
