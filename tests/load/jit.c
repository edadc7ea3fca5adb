// A runtime that compiles: it puts the same loop at the same address PHASES times, each time under another name, tells
// so, and runs it for SECONDS. Prints a line `NAME FROM TO` (CLOCK_MONOTONIC, ns) for each.
//   jit map|dump PHASES SECONDS
// map: /tmp/perf-PID.map, first with a line that is none; dump: ./jit-PID.dump, made known by an executable mapping of
// it.
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
// dec %rdi; jne -5; ret
static const unsigned char code[] = {0x48, 0xff, 0xcf, 0x75, 0xfb, 0xc3};
#define MACHINE 62
#elif defined(__aarch64__)
// subs x0, x0, #1; b.ne -4; ret
static const uint32_t code[] = {0xf1000400, 0x54ffffe1, 0xd65f03c0};
#define MACHINE 183
#endif

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static int file;
static char path[64];

static void put(const void *bytes, size_t size)
{
	if (write(file, bytes, size) != (ssize_t)size)
		exit(1);
}

static void open_map(void)
{
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", getpid());
	file = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
	put("this is no line\n", 16);
}

static void open_dump(void)
{
	struct {
		uint32_t magic, version, size, machine, pad, pid;
		uint64_t ts_ns, flags;
	} head = {0x4a695444, 1, sizeof(head), MACHINE, 0, getpid(), now(), 0};

	snprintf(path, sizeof(path), "jit-%d.dump", getpid());
	file = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0644);
	put(&head, sizeof(head));
	if (mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0) == MAP_FAILED)
		exit(1);
}

static void tell(int dump, void *at, const char *name, uint64_t index)
{
	struct {
		uint32_t kind, size;
		uint64_t ts_ns;
		uint32_t pid, tid;
		uint64_t vma, addr, bytes, index;
	} load = {0, 0, now(), getpid(), getpid(), (uintptr_t)at, (uintptr_t)at, sizeof(code), index};
	char line[128];

	if (dump) {
		load.size = sizeof(load) + strlen(name) + 1 + sizeof(code);
		put(&load, sizeof(load));
		put(name, strlen(name) + 1);
		put(code, sizeof(code));
	} else {
		put(line, snprintf(line, sizeof(line), "%lx %zx %s\n", (unsigned long)at, sizeof(code), name));
	}
}

int main(int argc, char **argv)
{
	int dump = argc > 1 && !strcmp(argv[1], "dump");
	int phases = argc > 2 ? atoi(argv[2]) : 1;
	double seconds = argc > 3 ? atof(argv[3]) : 1;
	void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		return 1;
	if (dump)
		open_dump();
	else
		open_map();
	for (int i = 1; i <= phases; i++) {
		uint64_t from, to;
		char name[32];

		memcpy(at, code, sizeof(code));
		__builtin___clear_cache(at, (char *)at + sizeof(code));
		snprintf(name, sizeof(name), "phase_%d", i);
		tell(dump, at, name, i);
		from = now();
		do {
			((void (*)(unsigned long))at)(10000000);
			to = now();
		} while (to - from < seconds * 1e9);
		printf("%s %lu %lu\n", name, (unsigned long)from, (unsigned long)to);
		fflush(stdout);
	}
	unlink(path);
	return 0;
}
