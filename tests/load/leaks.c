// Leaks of which the sum is known, among churn. Prints the address and size of each piece that it never frees, and at
// the end a sum that says that memory held what was put there.
//   leaks [LEAKS [ROUNDS [wait]]]
// With "wait" it begins, and later ends, when it is sent a byte.
// leak_small leaks LEAKS pieces of 24 bytes, leak_large a tenth as many of 5000.
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef PREFIX // an allocator of our own below another name: pf_malloc and so on
static char arena[64 << 20];
static size_t used;
__attribute__((noinline)) void *pf_malloc(size_t n)
{
	// Two threads share it.
	size_t at = __atomic_fetch_add(&used, (n + 31) / 16 * 16, __ATOMIC_RELAXED);

	return at + n + 16 < sizeof(arena) ? arena + at : NULL;
}
__attribute__((noinline)) void *pf_calloc(size_t n, size_t m)
{
	return pf_malloc(n * m);
}
__attribute__((noinline)) void pf_free(void *p)
{
	__asm__ volatile("" : : "r"(p) : "memory");
}
__attribute__((noinline)) void *pf_realloc(void *p, size_t n)
{
	void *q = pf_malloc(n);

	if (p && q)
		memcpy(q, p, n / 2);
	pf_free(p);
	return q;
}
#define malloc pf_malloc
#define calloc pf_calloc
#define realloc pf_realloc
#define free pf_free
#endif

static unsigned long sum;
static volatile size_t too_much = (size_t)-4096;
static void *handed[256];

static void leaked(void *p, size_t bytes)
{
	printf("leak %lu %zu\n", (unsigned long)p, bytes);
}

__attribute__((noinline)) static void leak_small(void)
{
	void *p = malloc(24);

	leaked(p, 24);
}

__attribute__((noinline)) static void leak_large(void)
{
	void *p = calloc(50, 100);

	leaked(p, 5000);
}

static void *free_elsewhere(void *arg)
{
	for (int i = 0; i < 256; i++)
		free(handed[i]);
	return arg;
}

__attribute__((noinline)) static void churn(int round)
{
	static char stack[1 << 18] __attribute__((aligned(4096)));
	pthread_attr_t attributes;
	pthread_t thread;
	char *p[64];

	for (int i = 0; i < 64; i++) {
		p[i] = malloc(16 + (round * 37 + i * 101) % 3000);
		memset(p[i], i, 16);
	}
	for (int i = 0; i < 64; i++) {
		sum += p[i][15];
		free(p[i]);
	}
	// A chain of realloc, also past the size from which on the pieces are mappings.
	p[0] = NULL;
	for (int i = 1; i < 12; i++) {
		p[0] = realloc(p[0], 100ul << i);
		p[0][(100ul << i) - 1] = i;
	}
	p[0] = realloc(p[0], 50);
	free(p[0]);
	if (round % 50)
		return;
	for (int i = 0; i < 256; i++)
		handed[i] = malloc(40 + i);
	// A stack of our own: those of the C library are mappings that it keeps.
	pthread_attr_init(&attributes);
	pthread_attr_setstack(&attributes, stack, sizeof(stack));
	if (pthread_create(&thread, &attributes, free_elsewhere, NULL))
		abort();
	pthread_join(thread, NULL);
	pthread_attr_destroy(&attributes);
#ifndef PREFIX
	void *aligned;

	if (posix_memalign(&aligned, 4096, 10000) == 0)
		free(aligned);
	free(aligned_alloc(64, 640));
	free(memalign(128, 100));
	free(valloc(5));
	free(reallocarray(NULL, 10, 30));
	// A realloc that fails leaves what was there.
	p[0] = malloc(700);
	if (realloc(p[0], too_much))
		abort();
	free(p[0]);
	// Mappings: one comes and goes, one moves, and it fails.
	char *m = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	m = mremap(m, 1 << 20, 3 << 20, MREMAP_MAYMOVE);
	if (mremap(m, 3 << 20, 1ul << 60, MREMAP_MAYMOVE) != MAP_FAILED)
		abort();
	munmap(m, 3 << 20);
	free(malloc(1 << 20)); // a mapping inside
#endif
}

static void pause_for_byte(int wanted)
{
	char byte;

	fflush(stdout);
	if (wanted && read(0, &byte, 1) != 1)
		_exit(1);
}

int main(int argc, char **argv)
{
	int leaks = argc > 1 ? atoi(argv[1]) : 100, rounds = argc > 2 ? atoi(argv[2]) : 200;

	static char out[1 << 16];

	setvbuf(stdout, out, _IOFBF, sizeof(out)); // else the C library allocates it and keeps it
	printf("pid %d\n", getpid());
	pause_for_byte(argc > 3);
	for (int round = 0; round < rounds; round++) {
		churn(round);
		for (int i = round * leaks / rounds; i < (round + 1) * leaks / rounds; i++) {
			leak_small();
			if (i % 10 == 0)
				leak_large();
		}
		if (round == rounds / 2) {
			// A child with a copy of all; what it frees is its own.
			fflush(stdout);
			pid_t child = fork();
			if (child == 0) {
				churn(1);
				_exit(0);
			}
			waitpid(child, NULL, 0);
		}
	}
	printf("sum %lu\n", sum);
	pause_for_byte(argc > 3);
	fflush(stdout);
	_exit(0);
}
