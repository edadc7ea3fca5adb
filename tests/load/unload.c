// Loads an allocator, uses it and unloads it, ten times; the same in a child, and once more after an exec. Prints
// "right" at the end. The same file is the allocator.
//   cc -DLIBRARY -shared -fPIC -o liballoc.so unload.c; unload PATH-OF-LIBRARY
#include <stddef.h>
#ifdef LIBRARY
static char arena[1 << 16];
static size_t used;

__attribute__((noinline)) void *pf_malloc(size_t n)
{
	void *p = arena + used;

	used += (n + 15) / 16 * 16;
	return p;
}
__attribute__((noinline)) void pf_free(void *p)
{
	__asm__ volatile("" : : "r"(p) : "memory");
}
#else
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void use(const char *path)
{
	for (int round = 0; round < 10; round++) {
		void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
		void *(*get)(size_t) = library ? dlsym(library, "pf_malloc") : NULL;
		void (*put)(void *) = library ? dlsym(library, "pf_free") : NULL;
		char *p;

		if (!get || !put)
			exit(2);
		for (int i = 0; i < 50; i++) {
			p = get(100);
			p[99] = i;
			put(p);
		}
		if (dlclose(library))
			exit(3);
	}
}

int main(int argc, char **argv)
{
	int status = 0;

	use(argv[1]);
	if (argc > 2) {
		puts("right");
		return 0;
	}
	if (fork() == 0) {
		use(argv[1]);
		_exit(0);
	}
	if (wait(&status) < 0 || status)
		return 4;
	execl("/proc/self/exe", argv[0], argv[1], "again", NULL);
	return 5;
}
#endif
