/*
 * cloop: an epoll loop with a constant answer, the least that any HTTP/1.1 server can spend on a request here.
 *
 *     cloop PORT plain     every request head is answered with 13 bytes of text (workloads plain and headers)
 *     cloop PORT echo      every POST is answered with BODY_BYTES constant bytes once its body has come (workload echo)
 *
 * It does what nobody can avoid: epoll_wait, one recv, find the end of the head (and, for echo, the length), one send.
 * It parses and checks nothing else: it is a yardstick, not a server. One thread, loopback only, ends on a signal.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256, SHARED = 1 << 18, CARRY = 1 << 14, BODY_BYTES = 10240, DESCRIPTORS = 20000 };

#define HEAD "HTTP/1.1 200 OK\r\nserver: cloop\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"

struct connection {
    size_t body_left;  /* bytes of the current request's body that have not come yet */
    size_t carried;    /* bytes of an unfinished head kept for the next recv */
    char *carry;       /* CARRY bytes, allocated only for a connection that ever splits a head */
};

static struct connection connections[DESCRIPTORS];
static char shared[SHARED];
static char answer[512 + BODY_BYTES];
static size_t answer_length;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* Build the constant answer: the text of the plain application, or the body that wrk/echo.lua posts. */
static void build_answer(int echo)
{
    if (!echo) {
        answer_length = (size_t)sprintf(answer, HEAD "content-type: text/plain; charset=utf-8\r\n"
                                                     "content-length: 13\r\n\r\nHello, World!");
        return;
    }
    answer_length = (size_t)sprintf(answer, HEAD "content-type: application/octet-stream\r\n"
                                                 "content-length: %d\r\n\r\n", BODY_BYTES);
    for (int i = 0; i < BODY_BYTES; i++)
        answer[answer_length++] = "0123456789abcdef"[i % 16];
}

static void drop(int fd)
{
    free(connections[fd].carry);
    connections[fd] = (struct connection){0, 0, NULL};
    close(fd);
}

/* Send everything; a client that does not read is waited for, since the yardstick has no other work. */
static int send_all(int fd, const char *data, size_t length)
{
    while (length > 0) {
        ssize_t sent = send(fd, data, length, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            return -1;
        if (sent > 0) {
            data += sent;
            length -= (size_t)sent;
        }
    }
    return 0;
}

/* The declared body length of the head that ends before `end`, 0 if there is none. */
static size_t content_length(const char *head, const char *end)
{
    static const char name[] = "\r\nContent-Length: ";
    const char *found = memmem(head, (size_t)(end - head), name, sizeof name - 1);
    return found ? strtoul(found + sizeof name - 1, NULL, 10) : 0;
}

/* Answer every request that is complete in data[0..length); keep the rest. Returns -1 when the client has to go. */
static int serve(int fd, struct connection *c, const char *data, size_t length, int echo)
{
    while (length > 0) {
        if (c->body_left > 0) {
            size_t taken = length < c->body_left ? length : c->body_left;
            c->body_left -= taken;
            data += taken;
            length -= taken;
            if (c->body_left == 0 && send_all(fd, answer, answer_length) < 0)
                return -1;
            continue;
        }
        const char *end = memmem(data, length, "\r\n\r\n", 4);
        if (end == NULL)
            break;
        c->body_left = echo ? content_length(data, end) : 0;
        length -= (size_t)(end + 4 - data);
        data = end + 4;
        if (c->body_left == 0 && send_all(fd, answer, answer_length) < 0)
            return -1;
    }
    if (length > CARRY)
        return -1;
    if (length > 0) {
        if (c->carry == NULL && (c->carry = malloc(CARRY)) == NULL)
            return -1;
        memcpy(c->carry, data, length);
    }
    c->carried = length;
    return 0;
}

static int listen_on(int port)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0)
        die("socket");
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
        die("setsockopt");
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("bind");
    if (listen(fd, 1024) < 0)
        die("listen");
    return fd;
}

static void accept_all(int poller, int listener)
{
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct epoll_event interest = {.events = EPOLLIN, .data.fd = fd};
        if (fd >= DESCRIPTORS) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &interest) < 0)
            die("epoll_ctl");
    }
}

int main(int argc, char **argv)
{
    if (argc != 3 || (strcmp(argv[2], "plain") != 0 && strcmp(argv[2], "echo") != 0)) {
        fprintf(stderr, "usage: cloop PORT plain|echo\n");
        return 2;
    }
    int echo = strcmp(argv[2], "echo") == 0;
    build_answer(echo);
    int listener = listen_on(atoi(argv[1])), poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event interest = {.events = EPOLLIN, .data.fd = listener}, ready[EVENTS];
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &interest) < 0)
        die("epoll");
    for (;;) {
        int count = epoll_wait(poller, ready, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener) {
                accept_all(poller, listener);
                continue;
            }
            struct connection *c = &connections[fd];
            size_t kept = c->carried;
            if (kept > 0)
                memcpy(shared, c->carry, kept);
            ssize_t got = recv(fd, shared + kept, SHARED - kept, 0);
            if (got < 0 && (errno == EAGAIN || errno == EINTR))
                continue;
            if (got <= 0 || serve(fd, c, shared, kept + (size_t)got, echo) < 0)
                drop(fd);
        }
    }
}
