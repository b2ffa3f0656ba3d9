/* Makes a race certain: a stop signal that comes after the interpreter has looked for signals, and before a call that
   blocks. Preloaded; RACE_WHEN: the file that must be there, RACE_SIGNAL: the number, RACE_IN: the function. Once. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

static void race(const char *name)
{
    static int done;
    const char *when = getenv("RACE_WHEN"), *in = getenv("RACE_IN"), *number = getenv("RACE_SIGNAL");
    if (done || when == NULL || in == NULL || number == NULL || strcmp(in, name) != 0 || access(when, F_OK) != 0)
        return;
    done = 1;
    raise(atoi(number));
}

/* With RACE_IN=stacks: reading a stack that changes meanwhile crashes, in the thread that writes the stacks. */
ssize_t write(int fd, const void *data, size_t size)
{
    static ssize_t (*next)(int, const void *, size_t);
    const char *in = getenv("RACE_IN");
    if (next == NULL)
        next = dlsym(RTLD_NEXT, "write");
    if (in != NULL && strcmp(in, "stacks") == 0 && size == 7 && memcmp(data, "  File ", 7) == 0) {
        int *volatile nothing = NULL;
        *nothing = 1;
    }
    return next(fd, data, size);
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout)
{
    static int (*next)(int, struct epoll_event *, int, int);
    if (next == NULL)
        next = dlsym(RTLD_NEXT, "epoll_wait");
    if (timeout < 0 || timeout > 5000) /* nothing wakes it soon */
        race("epoll");
    return next(epoll, events, most, timeout);
}

int epoll_pwait(int epoll, struct epoll_event *events, int most, int timeout, const sigset_t *mask)
{
    static int (*next)(int, struct epoll_event *, int, int, const sigset_t *);
    if (next == NULL)
        next = dlsym(RTLD_NEXT, "epoll_pwait");
    if (timeout < 0 || timeout > 5000) /* nothing wakes it soon */
        race("epoll");
    return next(epoll, events, most, timeout, mask);
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left)
{
    static int (*next)(clockid_t, int, const struct timespec *, struct timespec *);
    if (next == NULL)
        next = dlsym(RTLD_NEXT, "clock_nanosleep");
    race("sleep");
    return next(clock, flags, until, left);
}
