// Loads a library, calls a function of it, unloads it, and does the same with a second one, which must lie at the
// same address. Prints the addresses of both functions.
//   reload LIBRARY FUNCTION LIBRARY FUNCTION
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static void run(const char *path, const char *name)
{
	void *library = dlopen(path, RTLD_NOW);
	void (*function)(void) = NULL;
	Dl_info info;

	if (library)
		*(void **)&function = dlsym(library, name);
	if (!function || !dladdr((void *)function, &info)) {
		fprintf(stderr, "reload: %s\n", dlerror());
		exit(1);
	}
	function();
	printf("base %p\n", info.dli_fbase);
	dlclose(library);
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	run(argv[1], argv[2]);
	run(argv[3], argv[4]);
	return 0;
}
