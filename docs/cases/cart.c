// A service that answers 500 requests a second, for SECONDS. Each takes memory and gives it back, but the session of a
// visitor who leaves without a word is remembered for ever: 64 bytes, one request in four.
//   cart [SECONDS]
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct session {
	struct session *next;
	char name[56];
};

static struct session *sessions;

__attribute__((noinline)) static void remember_session(int visitor)
{
	struct session *s = malloc(sizeof(*s));

	if (!s)
		exit(1);
	memset(s->name, visitor, sizeof(s->name));
	s->next = sessions;
	sessions = s;
}

__attribute__((noinline)) static void render_page(int visitor)
{
	char *page = malloc(4096);

	if (!page)
		exit(1);
	memset(page, visitor, 4096);
	__asm__ volatile("" : : "r"(page) : "memory");
	free(page);
}

int main(int argc, char **argv)
{
	int requests = (argc > 1 ? atoi(argv[1]) : 5) * 500;
	const struct timespec pause = {0, 2000000};

	for (int i = 0; i < requests; i++) {
		if (i % 4 == 0)
			remember_session(i);
		render_page(i);
		nanosleep(&pause, NULL);
	}
	return 0;
}
