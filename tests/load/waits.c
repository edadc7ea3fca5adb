// A thread that waits in four functions: for the clock, for a lock, for a pipe and for a disk, ROUNDS times; one that
// waits for ever; and one that waits in one function for two callers. Says what it knows of its own time.
//   waits ROUNDS FILE
// Prints "at NAME ADDRESS" for each function, "NAME TID BEGIN_NS WALL_NS CPU_NS" for each thread and function.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Far enough apart that an address tells the function. */
#define ALONE __attribute__((noinline, aligned(512)))
#define STAY __asm__ volatile("") /* no tail call: the caller's frame must be there */

static int lock;
static int to_helper[2], from_helper[2], never[2], file;
static void *block;
static long rounds;

static long now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000l + t.tv_nsec;
}

// Nanoseconds that this thread has had a CPU, as perf_event_open(2) counts them where the kernel switches. The thread's
// own clock would leave out interrupts and what a hypervisor took: those are not waits either.
static long on_cpu(void)
{
	static __thread int fd = -1;
	struct perf_event_attr attr = {
	    .type = PERF_TYPE_SOFTWARE, .size = sizeof(attr), .config = PERF_COUNT_SW_TASK_CLOCK};
	long ns;

	if (fd < 0)
		fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	return fd >= 0 && read(fd, &ns, sizeof(ns)) == sizeof(ns) ? ns : now(CLOCK_THREAD_CPUTIME_ID);
}

static int tid(void)
{
	return syscall(SYS_gettid);
}

// Its own, for libc keeps no frame pointers, and neither do functions that call none: the caller's would be lost.
static ALONE long enter(long number, long a, long b, long c, long d)
{
	long result;
	register long r10 __asm__("r10") = d;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return result;
}

static ALONE long call(long number, long a, long b, long c, long d)
{
	long result = enter(number, a, b, c, d);

	STAY;
	return result;
}

static ALONE void nap(long us)
{
	struct timespec t = {us / 1000000, us % 1000000 * 1000};

	call(SYS_nanosleep, (long)&t, 0, 0, 0);
}

static ALONE void take_lock(void)
{
	while (__atomic_exchange_n(&lock, 1, __ATOMIC_SEQ_CST))
		call(SYS_futex, (long)&lock, FUTEX_WAIT, 1, 0);
}

static void give_lock(void)
{
	__atomic_store_n(&lock, 0, __ATOMIC_SEQ_CST);
	call(SYS_futex, (long)&lock, FUTEX_WAKE, 1, 0);
}

static ALONE void wait_clock(void)
{
	nap(20000);
	STAY;
}

static ALONE void wait_lock(void)
{
	take_lock();
	give_lock();
}

static ALONE char wait_pipe(void)
{
	char c = 0;

	if (call(SYS_read, from_helper[0], (long)&c, 1, 0) != 1)
		exit(1);
	STAY;
	return c;
}

static ALONE void wait_disk(void)
{
	static int turn;

	for (int i = 0; i < 16; i++)
		if (call(SYS_pwrite64, file, (long)block, 262144, turn++ % 16 * 262144) != 262144)
			exit(1);
	STAY;
}

// The helper: 'l' takes the lock, says so and gives it back after 10 ms; 'p' writes after 5 ms.
static ALONE void *help(void *unused)
{
	char c;

	printf("helper %d 0 0 0\n", tid());
	while (read(to_helper[0], &c, 1) == 1) {
		if (c == 'l') {
			take_lock();
			if (write(from_helper[1], &c, 1) != 1)
				exit(1);
			nap(10000);
			give_lock();
		} else {
			nap(5000);
			if (write(from_helper[1], &c, 1) != 1)
				exit(1);
		}
	}
	return unused;
}

static void ask(char c)
{
	if (write(to_helper[1], &c, 1) != 1)
		exit(1);
}

struct sum {
	const char *name;
	long begin, wall, cpu;
};

#define TIMED(sum, call)                                                                                               \
	do {                                                                                                           \
		long wall = now(CLOCK_MONOTONIC), cpu = on_cpu();                                                      \
		if (!(sum)->begin)                                                                                     \
			(sum)->begin = wall;                                                                           \
		call;                                                                                                  \
		(sum)->cpu += on_cpu() - cpu;                                                                          \
		(sum)->wall += now(CLOCK_MONOTONIC) - wall;                                                            \
	} while (0)

static void print(struct sum *sum)
{
	printf("%s %d %ld %ld %ld\n", sum->name, tid(), sum->begin, sum->wall, sum->cpu);
}

static ALONE void *wait_all(void *unused)
{
	struct sum sums[] = {{"wait_clock"}, {"wait_lock"}, {"wait_pipe"}, {"wait_disk"}}, all = {"waiter"};

	TIMED(
	    &all, for (long i = 0; i < rounds; i++) {
		    TIMED(&sums[0], wait_clock());
		    ask('l');
		    TIMED(&sums[2], wait_pipe());
		    TIMED(&sums[1], wait_lock());
		    ask('p');
		    TIMED(&sums[2], wait_pipe());
		    TIMED(&sums[3], wait_disk());
	    });
	for (int i = 0; i < 4; i++)
		print(&sums[i]);
	print(&all);
	return unused;
}

// Both callers lay out their frames alike: the wait has the same instruction, stack and frame pointers.
static ALONE void caller_one(void)
{
	nap(1000);
	STAY;
}

static ALONE void caller_two(void)
{
	nap(3000);
	STAY;
}

static ALONE void *call_two(void *unused)
{
	struct sum sums[] = {{"caller_one"}, {"caller_two"}}, all = {"twofold"};

	TIMED(
	    &all, for (long i = 0; i < rounds; i++) {
		    TIMED(&sums[0], caller_one());
		    TIMED(&sums[1], caller_two());
	    });
	print(&sums[0]);
	print(&sums[1]);
	print(&all);
	return unused;
}

static ALONE void *wait_forever(void *unused)
{
	char c;

	printf("forever %d 0 0 0\n", tid());
	fflush(stdout);
	if (call(SYS_read, never[0], (long)&c, 1, 0) < 0)
		exit(1);
	STAY;
	return unused;
}

ALONE int main(int argc, char **argv)
{
	pthread_t helper, waiter, twofold, forever;

	if (argc != 3)
		return 2;
	rounds = atol(argv[1]);
	file = open(argv[2], O_RDWR | O_CREAT | O_DIRECT, 0600);
	block = aligned_alloc(4096, 262144);
	if (file < 0 || !block || pipe(to_helper) || pipe(from_helper) || pipe(never)) {
		perror(argv[2]);
		return 1;
	}
#define AT(f) printf("at %s %ld\n", #f, (long)f)
	AT(wait_clock);
	AT(wait_lock);
	AT(wait_pipe);
	AT(wait_disk);
	AT(caller_one);
	AT(caller_two);
	AT(help);
	AT(wait_forever);
	memset(block, 0x5a, 262144);
	for (int i = 0; i < 16; i++)
		if (pwrite(file, block, 262144, i * 262144) != 262144)
			return 1;
	fsync(file);
	pthread_create(&forever, NULL, wait_forever, NULL);
	pthread_create(&helper, NULL, help, NULL);
	pthread_create(&waiter, NULL, wait_all, NULL);
	pthread_create(&twofold, NULL, call_two, NULL);
	pthread_join(waiter, NULL);
	pthread_join(twofold, NULL);
	fflush(stdout);
	_exit(0);
}
