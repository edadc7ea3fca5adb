// Leaks of operator new of which the sum is known, among churn and bad_alloc. To be linked with an allocator that has
// its own operator new. Prints its process, the address and size of each piece that it never frees, and how many
// exceptions it caught.
//   news [LEAKS [ROUNDS [THROWS]]]
#include <cstdio>
#include <cstdlib>
#include <new>
#include <unistd.h>

struct alignas(64) Wide {
	char bytes[192];
};

static void *volatile kept;
static volatile size_t too_much = ~size_t(0) / 4;
static int caught;

static void leaked(void *p, size_t bytes)
{
	kept = p;
	printf("leak %lu %zu\n", (unsigned long)p, bytes);
}

__attribute__((noinline)) static void leak(int i)
{
	switch (i % 4) {
	case 0:
		return leaked(operator new(48), 48);
	case 1:
		return leaked(new char[5000], 5000);
	case 2:
		return leaked(new (std::nothrow) char[700], 700);
	case 3:
		return leaked(new Wide, sizeof(Wide));
	}
}

__attribute__((noinline)) static void churn(int round)
{
	char *p[64];

	for (int i = 0; i < 64; i++)
		p[i] = new char[16 + (round * 37 + i * 101) % 300000];
	for (int i = 0; i < 64; i++)
		delete[] p[i];
	Wide *wide = new Wide;
	kept = wide;
	delete wide;
	if (new (std::nothrow) char[too_much])
		abort();
}

__attribute__((noinline)) static void bad_alloc(void)
{
	try {
		kept = operator new(too_much);
	} catch (const std::bad_alloc &) {
		caught++;
	}
}

int main(int argc, char **argv)
{
	int leaks = argc > 1 ? atoi(argv[1]) : 100, rounds = argc > 2 ? atoi(argv[2]) : 20;
	int throws = argc > 3 ? atoi(argv[3]) : rounds;

	static char out[1 << 16];

	setvbuf(stdout, out, _IOFBF, sizeof(out)); // else the C library allocates it and keeps it
	printf("pid %d\n", getpid());
	for (int round = 0; round < rounds; round++) {
		churn(round);
		if (round < throws)
			bad_alloc();
		for (int i = round * leaks / rounds; i < (round + 1) * leaks / rounds; i++)
			leak(i);
	}
	printf("sum %d\n", caught);
	fflush(stdout);
	_exit(0);
}
