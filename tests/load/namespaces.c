// Goes to other namespaces without running another program: its own mounts by unshare, back by setns; a second thread
// goes to a UTS namespace of its own. After each step it prints the step, the thread, and the inode of the namespace.
//   namespaces
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void say(const char *step, const char *of)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/thread-self/ns/%s", of);
	if (stat(path, &st))
		exit(2);
	printf("%s %d %lu\n", step, gettid(), (unsigned long)st.st_ino);
	fflush(stdout);
	usleep(20000);
}

static void *in_a_thread(void *arg)
{
	if (unshare(CLONE_NEWUTS))
		exit(3);
	say("thread", "uts");
	return arg;
}

int main(void)
{
	int home = open("/proc/self/ns/mnt", O_RDONLY);
	pthread_t thread;

	printf("pid %d\n", getpid());
	say("begin", "mnt");
	if (home < 0 || unshare(CLONE_NEWNS))
		return 1;
	say("own", "mnt");
	if (setns(home, CLONE_NEWNS))
		return 4;
	say("back", "mnt");
	pthread_create(&thread, NULL, in_a_thread, NULL);
	pthread_join(thread, NULL);
	return 0;
}
