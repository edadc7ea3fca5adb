// Threads that sleep again and again, and write down when into a mapped FILE, which stays whoever is killed. Until
// SIGTERM or SECONDS.
//   diary FILE THREADS SECONDS
// Of each thread the file has its id, how many sleeps are over, and of each the moments before and after it
// (CLOCK_MONOTONIC ns).
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MOST 262144

struct page {
	uint64_t tid;
	_Atomic uint64_t sleeps;
	struct {
		uint64_t before, after;
	} sleep[MOST];
};

static struct page *pages;

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void *sleeper(void *arg)
{
	struct page *page = arg;
	unsigned int seed = page - pages;

	page->tid = syscall(SYS_gettid);
	for (uint64_t i = 0; i < MOST; i++) {
		page->sleep[i].before = now();
		nanosleep(&(struct timespec){.tv_nsec = 500000 + rand_r(&seed) % 3000000}, NULL);
		page->sleep[i].after = now();
		page->sleeps = i + 1;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	int threads = argc > 2 ? atoi(argv[2]) : 2, file = argc > 1 ? open(argv[1], O_RDWR | O_CREAT, 0600) : -1;
	size_t bytes = threads * sizeof(struct page);
	pthread_t thread;

	if (file < 0 || ftruncate(file, bytes))
		return 1;
	pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (pages == MAP_FAILED)
		return 1;
	for (int i = 0; i < threads; i++)
		if (pthread_create(&thread, NULL, sleeper, &pages[i]))
			return 1;
	sleep(argc > 3 ? atoi(argv[3]) : 60);
	return 0;
}
