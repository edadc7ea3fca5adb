// COUNT writes of 64 KiB past the page cache, into the blocks that FILE has already: no journal, one request each.
//   directio FILE COUNT         FILE is made by "directio FILE 0" first
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SIZE = 64 * 1024, SLOTS = 16 };

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	int count = atoi(argv[2]), file = open(argv[1], O_RDWR | O_CREAT | O_DIRECT, 0600);
	void *block = aligned_alloc(4096, SIZE);

	if (file < 0 || !block) {
		perror(argv[1]);
		return 1;
	}
	memset(block, 0x5a, SIZE);
	for (int i = 0; i < (count ? count : SLOTS); i++) {
		if (pwrite(file, block, SIZE, (off_t)(i % SLOTS) * SIZE) != SIZE) {
			perror("pwrite");
			return 1;
		}
	}
	if (!count)
		fsync(file);
	return 0;
}
