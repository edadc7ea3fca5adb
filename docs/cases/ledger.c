// A service that writes an entry and waits until it is on the disk, again and again, for SECONDS.
//   ledger FILE [SECONDS]
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

__attribute__((noinline)) static void commit_entry(int file, const char *entry, size_t bytes)
{
	if (write(file, entry, bytes) != (ssize_t)bytes || fdatasync(file))
		exit(1);
	__asm__ volatile(""); // no tail call: the function stays on the stack
}

int main(int argc, char **argv)
{
	static char entry[4096];
	int file = argc > 1 ? open(argv[1], O_CREAT | O_TRUNC | O_WRONLY, 0600) : -1;
	time_t end = time(NULL) + (argc > 2 ? atoi(argv[2]) : 5);

	if (file < 0)
		return 1;
	while (time(NULL) < end)
		commit_entry(file, entry, sizeof(entry));
	return 0;
}
