// An allocator whose operator new throws, and a program that catches it. Prints "caught".
#include <cstddef>
#include <cstdio>
#include <new>

static char arena[1 << 16];
static size_t used;

extern "C" __attribute__((noinline)) void *pf_malloc(size_t n)
{
	void *p = arena + used;

	if (n > sizeof(arena) - used)
		return nullptr;
	used += (n + 15) / 16 * 16;
	return p;
}

extern "C" __attribute__((noinline)) void pf_free(void *p)
{
	__asm__ volatile("" : : "r"(p) : "memory");
}

void *operator new(size_t n)
{
	void *p = pf_malloc(n);

	if (!p)
		throw std::bad_alloc();
	return p;
}

void operator delete(void *p) noexcept
{
	pf_free(p);
}

void operator delete(void *p, size_t) noexcept
{
	pf_free(p);
}

int main()
{
	volatile size_t much = 1 << 20;

	delete new int(7);
	try {
		printf("%p\n", operator new(much));
	} catch (const std::bad_alloc &) {
		puts("caught");
	}
	return 0;
}
