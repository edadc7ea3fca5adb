// Holds objects of the kernel: N pipes, N sockets and N epoll instances. Does each step when it is sent a byte, and
// prints when it was done: open, close.
//   holds N
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void step(const char *done)
{
	struct timespec now;
	char byte;

	clock_gettime(CLOCK_MONOTONIC, &now);
	printf("%s %lld\n", done, now.tv_sec * 1000000000ll + now.tv_nsec);
	fflush(stdout);
	if (read(0, &byte, 1) != 1)
		exit(1);
}

int main(int argc, char **argv)
{
	int n = argc > 1 ? atoi(argv[1]) : 100, first = -1, last = -1;
	struct rlimit files = {4 * n + 100, 4 * n + 100};

	// The table of files grows before the count begins.
	if (setrlimit(RLIMIT_NOFILE, &files) || dup2(0, 4 * n + 50) < 0 || close(4 * n + 50))
		return 2;
	step("ready");
	for (int i = 0; i < n; i++) {
		int ends[2], opened[4] = {-1, -1, -1, -1};

		if (pipe(ends))
			return 3;
		opened[0] = ends[0];
		opened[1] = ends[1];
		opened[2] = socket(AF_UNIX, SOCK_STREAM, 0);
		opened[3] = epoll_create1(0);
		if (opened[2] < 0 || opened[3] < 0)
			return 4;
		if (first < 0)
			first = opened[0];
		last = opened[3];
	}
	step("open");
	for (int fd = first; fd <= last; fd++)
		close(fd);
	step("close");
	return 0;
}
