# cython: language_level=3
"""The watchdog: a thread that needs no GIL, and ends the process when a stop takes longer than it can.

Theory of operation
-------------------
One thread of the system's, of which Python knows nothing. It sleeps until a stop signal comes (``server.sigaction``
rings), or a deadline does. It counts the signals itself, with ``drain.escalation``'s rule, since a C call that holds the
GIL would keep Python from hearing of any. What follows from a signal was said beforehand: ``plan()`` has, for the phase
that the server is in, how long the stop can take that the first signal orders, and that the second one does. When
Python does hear, it says by ``bound()`` how long it takes from then on.

When the time is over, and at the third signal, the thread ends the process: it removes the unix sockets that are ours
(``own_sockets``), has ``faulthandler`` write the stacks of all threads, has the workers of a parent write theirs and
kills them (``own_children``), writes the report that was rendered beforehand (``draft``), and leaves by ``_exit``. The stacks are written by a thread of their own that is not waited for without
limit: reading the stacks of threads that run can crash, and a full pipe would block.

Two services more. A signal that Python has not heard of after a moment may have come just before a call that blocks:
the thread interrupts the main thread once more. And while a deadline is near it looks at the clock four times a second.
Where a second is missing between two looks, the whole process stood still (SIGSTOP, a frozen container), and the stop
gets time for what comes after the grace, once.

All functions may be called from any thread, also inside a handler in Python; without a running watchdog they do nothing.
"""

cimport cython
from libc.math cimport INFINITY
from libc.signal cimport SIGSEGV, raise_
from libc.stdint cimport uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memset
from posix.stat cimport lstat, struct_stat
from posix.types cimport pid_t
from posix.unistd cimport _exit, close, getpid, getppid, read, unlink, write

import os
import signal

from lastcall.drain.escalation cimport Asked, asked_nothing, press
from lastcall.server.replacing cimport write_file
from lastcall.server.sigaction cimport (
    SIG_BLOCK, SIG_SETMASK, SIG_UNBLOCK, Caught, Disposition, c_sigaction, call_python_again, caught_so_far, monotonic,
    next_caught, pthread_sigmask, pthread_t, ring, set_doorbell, sigaddset, sigemptyset, sigfillset, sigset_t, unheard,
)

cdef extern from "pthread.h" nogil:
    ctypedef struct pthread_attr_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_create(pthread_t* thread, pthread_attr_t* attr, void* (*run)(void*) noexcept nogil, void* argument)
    int pthread_join(pthread_t thread, void** result)
    int pthread_mutex_init(pthread_mutex_t* mutex, void* attr)
    int pthread_mutex_lock(pthread_mutex_t* mutex)
    int pthread_mutex_unlock(pthread_mutex_t* mutex)

cdef extern from "signal.h" nogil:
    const int SIGBUS
    const int SIGKILL
    int kill(pid_t pid, int signum)

cdef extern from "poll.h" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    int POLLIN
    int POLLOUT
    int poll(pollfd* fds, unsigned long n, int milliseconds)

cdef extern from * nogil:
    """
    #define load(address) __atomic_load_n((address), __ATOMIC_SEQ_CST)
    #define store(address, value) __atomic_store_n((address), (value), __ATOMIC_SEQ_CST)
    #define swap(address, value) __atomic_exchange_n((address), (value), __ATOMIC_SEQ_CST)
    """
    int load(int* address)
    int swap(int* address, int value)
    void store(int* address, int value)

cdef enum:
    SOCKETS = 32        # unix sockets that are remembered
    CHILDREN = 4096
    REMINDERS = 3       # times that the main thread is interrupted for one signal

cdef double LOOK = 0.25         # seconds between two looks at the clock while there is a deadline
cdef double STOOD_STILL = 1.0   # more than so many between two looks: the process did not run
cdef double REMINDER = 0.1      # seconds in which Python hears of a signal, unless something keeps it from that
cdef double STACKS = 1.0        # at most so many for the stacks
cdef double THEIR_STACKS = 0.3  # and for those of the children, which run while they are waited for

BLOCKED_START = 0.5
"""Seconds after a stop order in which a start-up that does not block has let the event loop turn."""

cdef double PATIENCE = BLOCKED_START

cdef struct Socket:
    const char* path
    uint64_t device
    uint64_t inode

cdef struct Child:
    pid_t pid
    bint has_stacks     # it writes its stacks when it is asked to, by the signal that we use ourselves

cdef struct Plan:
    double first        # seconds from a first signal to the end; infinity: it sets no deadline
    double interrupt    # and from a first SIGINT
    double second
    double restart      # seconds that are given again after a standstill
    int code            # the exit code where the first signal's time is over
    bint starting       # a second signal ends the process

cdef struct Watch:
    Plan plan
    Asked asked
    unsigned long cursor    # of the ring of signals
    double ordered          # when the first signal came, or when Python first set a deadline; 0: neither
    double latest           # and the last one
    int reminders           # how often the main thread was interrupted since
    bint interrupted        # and whether that was for a start-up that blocks, or need not be
    double deadline         # infinity: none
    int code
    bint restarted
    double looked           # when the clock was last looked at; 0: there was no deadline
    double stood_still      # until when the process stood still, last; 0: it never did
    Socket sockets[SOCKETS]
    int count
    Child children[CHILDREN]
    int child_count
    const char* path        # of the report; NULL: none
    const char* fresh
    const char* document    # without its end, which says how the process ended
    size_t length
    int output              # the descriptor of standard error, or -1
    int stacks              # the signal that has the stacks written; 0: none
    void* stacks_handler
    int parent              # while this is our parent, signals are its affair; 0: we have none who wants that
    bint stopping

cdef Watch watch
cdef pthread_mutex_t lock
cdef pthread_t thread
cdef int running = 0            # the process whose watchdog runs
cdef int bell[2]
cdef int SIGINT_ = signal.SIGINT
cdef int SIGQUIT_ = signal.SIGQUIT
cdef int SIGTERM_ = signal.SIGTERM
cdef int dumped = 0
cdef int finishing = 0
cdef int leaving = 0            # once it is certain: the exit code, the outcome, and since when
cdef const char* leaving_by = NULL
cdef double leaving_at = 0
_kept = {}                      # the bytes that `watch` points to

bell[0] = bell[1] = -1


# -- the thread: no GIL, no memory, and none of its functions is traced, which would take the GIL ----------------------


@cython.linetrace(False)
cdef void* run(void* argument) noexcept nogil:
    cdef pollfd waiting
    cdef char received[64]
    cdef double now, until
    while True:
        pthread_mutex_lock(&lock)
        now = monotonic()
        look(now)
        hear()
        if now >= watch.deadline:
            leave(watch.code, b"watchdog", b"lastcall: the stop took longer than it can: exit code ", now)
        remind(now)
        if watch.stopping:
            pthread_mutex_unlock(&lock)
            return NULL
        until = next_look(now)
        pthread_mutex_unlock(&lock)
        waiting.fd = bell[0]
        waiting.events = POLLIN
        poll(&waiting, 1, -1 if until == INFINITY else <int>((until - now) * 1000) + 1)
        while read(bell[0], received, sizeof(received)) > 0:
            pass


@cython.linetrace(False)
cdef void hear() noexcept nogil:
    """Count the signals that have come."""
    cdef Caught caught
    cdef int before
    while next_caught(&watch.cursor, &caught):
        watch.latest = caught.when
        watch.reminders = 0
        before = watch.asked.level
        if is_parents_affair(caught.signum):
            continue
        if not press(&watch.asked, caught.when, 2 if caught.signum == SIGQUIT_ else 1):
            continue
        if watch.ordered == 0:
            watch.ordered = caught.when
        if watch.asked.level == 3:
            leave(5, b"third signal", b"lastcall: third stop signal: everything is abandoned, exit code ", monotonic())
        elif watch.asked.level == 2 and watch.plan.starting:
            leave(5, b"second signal", b"lastcall: second stop signal in the start: abandoned, exit code ", monotonic())
        elif watch.asked.level == 2:
            limit(caught.when + watch.plan.second, 1)
        else:
            limit(
                caught.when + (watch.plan.interrupt if caught.signum == SIGINT_ else watch.plan.first),
                watch.plan.code,
            )


@cython.linetrace(False)
cdef bint is_parents_affair(int signum) noexcept nogil:
    """Whether a signal does not count: a worker is stopped by its parent's orders, as long as that lives."""
    if watch.parent == 0 or getppid() != watch.parent:
        return False
    return not (watch.plan.starting and signum == SIGTERM_)


@cython.linetrace(False)
cdef void limit(double deadline, int code) noexcept nogil:
    """End by ``deadline``, unless that is ordered for an earlier time already."""
    if deadline < watch.deadline:
        watch.deadline = deadline
        watch.code = code
        if watch.looked == 0:
            watch.looked = monotonic()


@cython.linetrace(False)
cdef void look(double now) noexcept nogil:
    """Look whether the process stood still since the last look."""
    if watch.looked == 0:
        return
    if now - watch.looked > STOOD_STILL:
        watch.stood_still = now
        if not watch.restarted and watch.deadline < now + watch.plan.restart:
            watch.restarted = True
            watch.deadline = now + watch.plan.restart
    watch.looked = now if watch.deadline < INFINITY else 0


@cython.linetrace(False)
cdef void remind(double now) noexcept nogil:
    """Have Python's handler called where it seems to be kept from that."""
    if watch.asked.level == 0:
        return
    if unheard() and watch.reminders < REMINDERS and now >= watch.latest + REMINDER * (watch.reminders + 1):
        watch.reminders += 1
        call_python_again()
    elif watch.plan.starting and not watch.interrupted and now >= watch.ordered + PATIENCE:
        watch.interrupted = True
        call_python_again()


@cython.linetrace(False)
cdef double next_look(double now) noexcept nogil:
    """When the thread has something to do; infinity: when it is rung for."""
    cdef double until = INFINITY
    if watch.deadline < INFINITY:
        until = min(now + LOOK, watch.deadline)
    if watch.asked.level > 0:
        if unheard() and watch.reminders < REMINDERS:
            until = min(until, watch.latest + REMINDER * (watch.reminders + 1))
        if watch.plan.starting and not watch.interrupted:
            until = min(until, watch.ordered + PATIENCE)
    return max(until, now)


@cython.linetrace(False)
cdef void leave(int code, const char* outcome, const char* words, double now) noexcept nogil:
    """End the process."""
    global leaving, leaving_by, leaving_at
    cdef char line[160]
    cdef int i
    cdef struct_stat found
    cdef pthread_t helper
    cdef Disposition crashed
    leaving, leaving_by, leaving_at = code, outcome, now
    for i in range(watch.count):
        if (
            lstat(watch.sockets[i].path, &found) == 0
            and found.st_dev == watch.sockets[i].device
            and found.st_ino == watch.sockets[i].inode
        ):
            unlink(watch.sockets[i].path)
    say(line, <size_t>snprintf(line, sizeof(line), b"%s%d\n", words, code))
    # Threads that run change what is read: the crash of that is the end, but with our report and our exit code.
    memset(&crashed, 0, sizeof(crashed))
    crashed.sa_handler = on_crash
    sigemptyset(&crashed.sa_mask)
    c_sigaction(SIGSEGV, &crashed, NULL)
    c_sigaction(SIGBUS, &crashed, NULL)
    if watch.stacks > 0 and pthread_create(&helper, NULL, write_stacks, NULL) == 0:
        for i in range(<int>(STACKS * 100)):
            if load(&dumped):
                break
            poll(NULL, 0, 10)
    kill_children()
    finish()


@cython.linetrace(False)
cdef void kill_children() noexcept nogil:
    """Have the children write their stacks, then kill them. None is reaped before it is taken from the list."""
    cdef int i
    cdef bint asked = False
    for i in range(watch.child_count):
        if watch.children[i].has_stacks and watch.stacks > 0:
            asked |= kill(watch.children[i].pid, watch.stacks) == 0
    if asked:
        poll(NULL, 0, <int>(THEIR_STACKS * 1000))
    for i in range(watch.child_count):
        kill(watch.children[i].pid, SIGKILL)


@cython.linetrace(False)
cdef void on_crash(int signum) noexcept nogil:
    kill_children()
    finish()


@cython.linetrace(False)
cdef void finish() noexcept nogil:
    """Write the report, and exit: one right after the other, since Python may be about to exit with another code."""
    cdef char end[160]
    cdef int size
    if swap(&finishing, 1):
        poll(NULL, 0, <int>(STACKS * 1000))     # another thread writes it, and exits
    elif watch.path != NULL:
        size = snprintf(
            end, sizeof(end), b', "outcome": "%s", "exit_code": %d, "seconds": %.3f}\n', leaving_by, leaving,
            leaving_at - watch.ordered if watch.ordered > 0 else 0.0,
        )
        write_file(watch.path, watch.fresh, watch.document, watch.length, end, <size_t>size)
    _exit(leaving)


@cython.linetrace(False)
cdef void say(const char* words, size_t size) noexcept nogil:
    """Write to standard error, if it takes that without waiting."""
    cdef pollfd waiting
    if watch.output < 0:
        return
    waiting.fd = watch.output
    waiting.events = POLLOUT
    if poll(&waiting, 1, 0) == 1:
        write(watch.output, words, size)


@cython.linetrace(False)
cdef void* write_stacks(void* argument) noexcept nogil:
    """Have faulthandler write the stacks, if the signal for that is still its own."""
    cdef Disposition found
    cdef sigset_t one
    if c_sigaction(watch.stacks, NULL, &found) == 0 and <void*>found.sa_handler == watch.stacks_handler:
        sigemptyset(&one)
        sigaddset(&one, watch.stacks)
        # A fault that finds its signal blocked ends the process by it, whatever handler there is.
        sigaddset(&one, SIGSEGV)
        sigaddset(&one, SIGBUS)
        pthread_sigmask(SIG_UNBLOCK, &one, NULL)
        raise_(watch.stacks)
    store(&dumped, 1)
    return NULL


# -- told by Python ----------------------------------------------------------------------------------------------------


def start(int stderr, int stacks, int parent=0):
    """Start the watchdog; only signals count that come from now on.

    ``stderr``: the descriptor for what it has to say, or -1. ``stacks``: the signal for which ``faulthandler`` was
    registered, or 0. ``parent``: while this process is our parent, signals do not count, but for a SIGTERM in the start.
    Raises OSError where the system gives no thread.
    """
    global running
    cdef sigset_t every, before
    cdef Disposition found
    cdef int error
    if running == getpid():
        raise RuntimeError("the watchdog runs already")
    forget()
    if bell[0] < 0:
        bell[0], bell[1] = os.pipe()
        os.set_blocking(bell[0], False)
        os.set_blocking(bell[1], False)
    memset(&watch, 0, sizeof(watch))
    asked_nothing(&watch.asked)
    watch.cursor = caught_so_far()
    watch.deadline = watch.plan.first = watch.plan.interrupt = watch.plan.second = watch.plan.restart = INFINITY
    watch.plan.code = watch.code = 1
    watch.output = stderr
    watch.stacks = stacks
    watch.parent = parent
    if stacks > 0 and c_sigaction(stacks, NULL, &found) == 0:
        watch.stacks_handler = <void*>found.sa_handler
    pthread_mutex_init(&lock, NULL)
    # A thread begins with the mask of the one that made it: no signal is ever delivered there.
    sigfillset(&every)
    pthread_sigmask(SIG_BLOCK, &every, &before)
    error = pthread_create(&thread, NULL, run, NULL)
    pthread_sigmask(SIG_SETMASK, &before, NULL)
    if error != 0:
        raise OSError(error, os.strerror(error))
    running = getpid()
    set_doorbell(bell[1])


def is_running():
    """Whether this process has a watchdog."""
    return running == getpid()


def stop():
    """End the watchdog, and forget all that it was told."""
    global running
    if running != getpid():
        return
    set_doorbell(-1)
    pthread_mutex_lock(&lock)
    watch.stopping = True
    pthread_mutex_unlock(&lock)
    ring(bell[1])
    with nogil:
        pthread_join(thread, NULL)
    running = 0
    _kept.clear()


def plan(double first, double interrupt, double second, *, double restart, int code, bint starting=False):
    """What stop signals mean from now on, in seconds from the signal to the end of the process; infinity: no deadline.

    ``first`` and ``interrupt`` belong to a first signal, that is not SIGINT or is; ``second`` to a second one. A
    deadline is only ever brought forward by them. ``code`` is the exit code where the first one's time is over.
    ``restart``: seconds that are left at least after the process stood still. ``starting``: a second signal ends the
    process at once, and ``BLOCKED_START`` after a first one the handler in Python is called again, to look.
    """
    cdef Plan new
    new.first, new.interrupt, new.second, new.restart = first, interrupt, second, restart
    new.code, new.starting = code, starting
    if running == getpid():
        pthread_mutex_lock(&lock)
        watch.plan = new
        pthread_mutex_unlock(&lock)
        ring(bell[1])


def begin_anew():
    """The start is over, and signals mean something else: those that came in it have been answered, or were no orders."""
    if running == getpid():
        pthread_mutex_lock(&lock)
        asked_nothing(&watch.asked)
        watch.deadline = INFINITY
        watch.ordered = watch.looked = 0
        pthread_mutex_unlock(&lock)


def leaves_at_second():
    """Whether it ends the process at a second signal, as in the start."""
    cdef bint found = False
    if running == getpid():
        pthread_mutex_lock(&lock)
        found = watch.plan.starting
        pthread_mutex_unlock(&lock)
    return found


def turned():
    """The event loop has turned since the order: the start-up does not block it, and needs no interruption."""
    if running == getpid():
        pthread_mutex_lock(&lock)
        watch.interrupted = True
        pthread_mutex_unlock(&lock)


def bound(double seconds):
    """From now on it takes at most ``seconds`` to the end, whatever was said before; infinity: it has no limit."""
    cdef double now
    if running == getpid():
        pthread_mutex_lock(&lock)
        now = monotonic()
        watch.deadline = now + seconds
        watch.code = 1
        watch.looked = now if seconds < INFINITY else 0
        if watch.ordered == 0:
            watch.ordered = now
        pthread_mutex_unlock(&lock)
        ring(bell[1])


def own_sockets(files):
    """The files to remove: (path, device, inode) of unix sockets that we made, each only while it is still that one."""
    cdef const char* path
    if running != getpid():
        return
    kept = [(bytes(path_), device, inode) for path_, device, inode in files][:SOCKETS]
    pthread_mutex_lock(&lock)
    watch.count = 0
    for path_, device, inode in kept:
        path = path_
        watch.sockets[watch.count].path = path
        watch.sockets[watch.count].device = device
        watch.sockets[watch.count].inode = inode
        watch.count += 1
    pthread_mutex_unlock(&lock)
    _kept["sockets"] = kept


def own_children(children):
    """The processes to kill with this one: (pid, whether it has registered its stacks by the signal of ``start()``).

    A child must be taken from the list before it is reaped, lest its number be somebody else's when it comes to that.
    """
    if running != getpid():
        return
    kept = list(children)[:CHILDREN]
    pthread_mutex_lock(&lock)
    watch.child_count = 0
    for pid, has_stacks in kept:
        watch.children[watch.child_count].pid = pid
        watch.children[watch.child_count].has_stacks = has_stacks
        watch.child_count += 1
    pthread_mutex_unlock(&lock)


def draft(bytes path, bytes fresh, bytes document):
    """The report to write if it comes to that: ``replacing.replace_file``'s arguments.

    ``document`` is a JSON object without its closing brace and without ``outcome``, ``exit_code`` and ``seconds``,
    which the watchdog adds.
    """
    cdef const char* where = path
    cdef const char* beside = fresh
    cdef const char* data = document
    if running == getpid():
        earlier = _kept.get("draft")
        pthread_mutex_lock(&lock)
        watch.path = where
        watch.fresh = beside
        watch.document = data
        watch.length = len(document)
        pthread_mutex_unlock(&lock)
        _kept["draft"] = (path, fresh, document)
        del earlier     # not before the thread has the new one


def forget():
    """In a child that was forked: there is no watchdog, and the descriptors are copies of the parent's."""
    global running
    if running not in (0, getpid()):
        running = 0
        for i in range(2):
            close(bell[i])
            bell[i] = -1
        _kept.clear()


def stood_still():
    """Until when, by ``time.monotonic()``, the process stood still last (stopped, or frozen) while it had a deadline.

    0: it never did.
    """
    cdef double found = 0
    if running == getpid():
        pthread_mutex_lock(&lock)
        look(monotonic())
        found = watch.stood_still
        pthread_mutex_unlock(&lock)
    return found
