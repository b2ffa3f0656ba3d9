# cython: language_level=3
"""The stop signals' handler in C, over Python's own: it notes the signal and wakes who sleeps, without the GIL.

Theory of operation
-------------------
Python's handler in C only sets a flag; the function that was given to ``signal.signal`` runs when the interpreter looks
at the flag. Two things go wrong with that. A C call that holds the GIL keeps the interpreter from looking, for as long
as it likes. And a signal that comes between the last look and a call that blocks is not heard of until that call
returns: a server that is idle would sleep on. ``signal.set_wakeup_fd`` is there against the second, but it is one for
the whole process, and loops set and unset it as they please.

So ``catch()`` puts a handler of ours before Python's, which it calls. It does what POSIX allows in a handler and no
more (signal-safety(7)): it adds number and time to a ring, calls Python's handler, and writes a byte to each descriptor
that a loop watches (``add_waker``), and to the watchdog's doorbell. In this order: who is woken must find the flag set.
The descriptors stay open for good: a handler that runs in another thread may hold the number of one that was just
closed, and would write into somebody else's file.

The ring is written by handlers, which may run in several threads at once, and read by two, each with a cursor of its
own: by ``take()`` for the handler in Python, and by the watchdog's thread. One who lags behind by more than its size
misses the oldest entries.

A handler that somebody installs later replaces ours as it replaces Python's. In a forked child ours does nothing but
call Python's.
"""

cimport cython
from libc.errno cimport errno
from libc.string cimport memset
from posix.types cimport pid_t
from posix.unistd cimport getpid, write

import contextlib
import os

cdef extern from "pthread.h" nogil:
    pthread_t pthread_self()

cdef extern from "time.h" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* now)

cdef extern from * nogil:
    """
    #ifdef __linux__
    #include <sys/prctl.h>
    static int lastcall_end_with_parent(int signum) { return prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0); }
    #else
    static int lastcall_end_with_parent(int signum) { (void)signum; errno = ENOSYS; return -1; }
    #endif
    """
    int lastcall_end_with_parent(int signum)

cdef extern from * nogil:
    """
    #define load(address) __atomic_load_n((address), __ATOMIC_SEQ_CST)
    #define store(address, value) __atomic_store_n((address), (value), __ATOMIC_SEQ_CST)
    #define swap(address, value) __atomic_exchange_n((address), (value), __ATOMIC_SEQ_CST)
    #define take_next(address) __atomic_fetch_add((address), 1UL, __ATOMIC_SEQ_CST)
    #ifdef SI_TKILL
    #define SENT_TO_THREAD(info) ((info)->si_code == SI_TKILL)
    #else
    #define SENT_TO_THREAD(info) 1
    #endif
    #ifdef __APPLE__   /* where time.monotonic() does not count the time asleep */
    #define MONOTONIC CLOCK_UPTIME_RAW
    #else
    #define MONOTONIC CLOCK_MONOTONIC
    #endif
    """
    unsigned long load(unsigned long* address)
    int load_int "load"(int* address)
    void store(unsigned long* address, unsigned long value)
    void store_int "store"(int* address, int value)
    int swap(int* address, int value)
    unsigned long take_next(unsigned long* address)
    bint SENT_TO_THREAD(siginfo_t* info)
    const int MONOTONIC

cdef enum:
    RING = 64       # a power of two
    WAKERS = 16
    SIGNALS = 65

cdef struct Entry:
    unsigned long number    # which of all signals is in it, from 1; another one: it is being written
    Caught caught

cdef Entry entries[RING]
cdef unsigned long written = 0          # how many signals have come
cdef unsigned long heard = 0            # how many of them Python has taken
cdef unsigned long delivered[SIGNALS]   # how often Python's handler was called for a signal, by number
cdef unsigned long expected[SIGNALS]    # and how often that was when take() was last called for it
cdef int again = 0                      # the next signal to the main thread is ours, and no news
cdef int reminded = 0                   # and has come
cdef int wakers[WAKERS]
cdef int doorbell = -1                  # the watchdog's
cdef pid_t doorbell_of = 0
cdef pid_t owner = 0
cdef pthread_t main_thread
cdef int latest = 0                     # the number of the signal that came last
cdef Disposition before[SIGNALS]

memset(entries, 0, sizeof(entries))
memset(delivered, 0, sizeof(delivered))
memset(expected, 0, sizeof(expected))
memset(before, 0, sizeof(before))
for _slot in range(WAKERS):
    wakers[_slot] = -1


# -- in the handler: nothing but what signal-safety(7) allows; and none is traced, which would take the GIL -----------


@cython.linetrace(False)
cdef double monotonic() noexcept nogil:
    """``time.monotonic()``."""
    cdef timespec now
    clock_gettime(MONOTONIC, &now)
    return <double>now.tv_sec + <double>now.tv_nsec * 1e-9


@cython.linetrace(False)
cdef void note(int signum, double when) noexcept nogil:
    """Add a signal to the ring."""
    cdef unsigned long number = take_next(&written)
    cdef Entry* entry = &entries[number & (RING - 1)]
    store(&entry.number, 0)
    entry.caught.signum = signum
    entry.caught.when = when
    store(&entry.number, number + 1)
    store_int(&latest, signum)


@cython.linetrace(False)
cdef void ring(int fd) noexcept nogil:
    """Write a byte. One that finds no room is not missed: who reads there is awake."""
    cdef char byte = 0
    if fd >= 0:
        write(fd, &byte, 1)


@cython.linetrace(False)
cdef void on_signal(int signum, siginfo_t* info, void* context) noexcept nogil:
    cdef int saved = errno
    cdef bint ours = getpid() == owner      # a forked child has our handler, and must not wake its parent
    cdef bint news = ours and not (SENT_TO_THREAD(info) and swap(&again, 0))
    cdef int slot
    if news:
        note(signum, monotonic())
        take_next(&delivered[signum])
    elif ours:
        store_int(&reminded, 1)
    if before[signum].sa_flags & SA_SIGINFO:
        before[signum].sa_sigaction(signum, info, context)
    elif before[signum].sa_handler != SIG_DFL and before[signum].sa_handler != SIG_IGN:
        before[signum].sa_handler(signum)
    if ours:
        for slot in range(WAKERS):
            ring(load_int(&wakers[slot]))
        if news and doorbell_of == owner:
            ring(load_int(&doorbell))
    (&errno)[0] = saved


# -- for the watchdog's thread ----------------------------------------------------------------------------------------


@cython.linetrace(False)
cdef bint next_caught(unsigned long* cursor, Caught* caught) noexcept nogil:
    """Take the next signal after ``cursor``; False if there is none, or it is just being written."""
    cdef unsigned long end = load(&written), number
    if end - cursor[0] > RING:
        cursor[0] = end - RING
    while cursor[0] != end:
        number = cursor[0]
        caught[0] = entries[number & (RING - 1)].caught
        if load(&entries[number & (RING - 1)].number) == number + 1:
            cursor[0] = number + 1
            return True
        if load(&written) - number <= RING:
            return False    # its writer rings when it is done
        cursor[0] = number + 1
    return False


@cython.linetrace(False)
cdef unsigned long caught_so_far() noexcept nogil:
    """A cursor behind all that has come."""
    return load(&written)


@cython.linetrace(False)
cdef void set_doorbell(int fd) noexcept nogil:
    """Ring at ``fd`` when a signal comes to this process; -1: at none."""
    global doorbell_of
    doorbell_of = getpid()
    store_int(&doorbell, fd)


@cython.linetrace(False)
cdef bint unheard() noexcept nogil:
    """Whether a signal has come that Python has not taken yet."""
    return load(&heard) != load(&written)


@cython.linetrace(False)
cdef void call_python_again() noexcept nogil:
    """Have the handler in Python called in the main thread, and what blocks there interrupted, without a new signal.

    By one of the signals whose handler is still ours, the last that came if it is. Any other would be taken for a
    signal by whoever handles it now, or end the process. Where there is none, this does nothing.
    """
    cdef int signum = load_int(&latest), number
    if not still_ours(signum):
        signum = 0
        for number in range(1, SIGNALS):
            if still_ours(number):
                signum = number
                break
    if signum > 0:
        store_int(&again, 1)
        pthread_kill(main_thread, signum)


@cython.linetrace(False)
cdef bint still_ours(int signum) noexcept nogil:
    """Whether nobody has replaced the handler."""
    cdef Disposition found
    return signum > 0 and c_sigaction(signum, NULL, &found) == 0 and is_ours(&found)


# -- for Python -------------------------------------------------------------------------------------------------------


def catch(int signum):
    """Put the handler in C before the one that is installed for ``signum``, by ``signal.signal`` just now.

    In the main thread only. Raises OSError as ``sigaction(2)`` does.
    """
    global owner, main_thread
    cdef Disposition action, found
    if not 0 < signum < SIGNALS:
        raise ValueError(f"signal number {signum} out of range")
    if owner != getpid():
        if owner != 0:
            leave_wakers()      # the parent's
        owner = getpid()
    main_thread = pthread_self()
    memset(&action, 0, sizeof(action))
    action.sa_sigaction = on_signal
    # Without SA_RESTART, as Python's: a call that blocks must return, so that the interpreter looks.
    action.sa_flags = SA_SIGINFO | SA_ONSTACK
    sigfillset(&action.sa_mask)     # one at a time: of two that are pending the second would begin first
    if c_sigaction(signum, NULL, &found) != 0:
        raise OSError(errno, os.strerror(errno))
    if not is_ours(&found):
        before[signum] = found
        if c_sigaction(signum, &action, NULL) != 0:
            raise OSError(errno, os.strerror(errno))


@cython.linetrace(False)
cdef bint is_ours(Disposition* action) noexcept nogil:
    return action.sa_flags & SA_SIGINFO and action.sa_sigaction == on_signal


def is_caught(int signum):
    """Whether the handler in C is installed: nobody has put another one in its place."""
    return still_ours(signum)


def is_default(int signum):
    """Whether nobody at all handles ``signum``; ``signal.getsignal`` knows only of handlers in Python."""
    cdef Disposition found
    return c_sigaction(signum, NULL, &found) == 0 and not found.sa_flags & SA_SIGINFO and found.sa_handler == SIG_DFL


def take(int signum, double now):
    """The signals that came since the last call, oldest first, as pairs of number and time; for the handler in Python.

    And whether the watchdog had it called again. ``signum`` is what it was called with, ``now`` the time. Where nobody
    sent that signal (an application's own handler calls ours, say), the call itself counts as one. There are none where
    the signal was in an earlier answer.
    """
    cdef Caught caught
    cdef unsigned long cursor, count
    cdef bint once_more, called
    if not 0 < signum < SIGNALS:
        raise ValueError(f"signal number {signum} out of range")
    count = load(&delivered[signum])
    once_more = swap(&reminded, 0)
    if count == expected[signum] and not once_more:
        # Replaced in the moment in which we were reminded: then the reminder went to the new one, which calls us.
        once_more = swap(&again, 0)
    called = count == expected[signum] and not once_more
    expected[signum] = count
    if called:
        note(signum, now)
    found = []
    cursor = load(&heard)
    while next_caught(&cursor, &caught):
        found.append((caught.signum, caught.when))
    store(&heard, cursor)
    if called and doorbell_of == getpid():
        ring(load_int(&doorbell))
    return found, once_more


def end_with_parent(int signum):
    """Have the kernel send ``signum`` when the thread that has started this process ends (PR_SET_PDEATHSIG in prctl(2)).

    A change of identity takes that back: do this after it. One whose parent ended before this call hears nothing. Raises
    OSError where the system has no such thing.
    """
    if lastcall_end_with_parent(signum) != 0:
        raise OSError(errno, os.strerror(errno))


def skip():
    """Forget the signals that nobody has taken: they were for a server that is gone."""
    store(&heard, load(&written))
    for signum in range(SIGNALS):
        expected[signum] = load(&delivered[signum])


# -- who is woken -----------------------------------------------------------------------------------------------------

# Pairs of descriptors: those that are not in use, and all that there are.
_spare = []
_all = []


def open_waker():
    """Descriptors (to watch, to write to) of a pipe that gets a byte with each signal; give them to ``close_waker``."""
    if _spare:
        pair = _spare.pop()
        drain(pair[0])
    else:
        pair = os.pipe()
        _all.append(pair)
        os.set_blocking(pair[0], False)
        os.set_blocking(pair[1], False)
    for slot in range(WAKERS):
        if load_int(&wakers[slot]) < 0:
            store_int(&wakers[slot], pair[1])
            break
    # Else there are so many that another one wakes this loop as well: only one loop runs in the main thread.
    return pair


def close_waker(pair):
    """Wake nobody at ``pair`` any more. It stays open, and is used again."""
    for slot in range(WAKERS):
        if load_int(&wakers[slot]) == pair[1]:
            store_int(&wakers[slot], -1)
    if pair in _all:
        _spare.append(pair)


def leave_wakers():
    """Close this process's copies of all pipes: in a forked child, to which they mean nothing."""
    for slot in range(WAKERS):
        store_int(&wakers[slot], -1)
    for pair in _all:
        for fd in pair:
            with contextlib.suppress(OSError):
                os.close(fd)
    _all.clear()
    _spare.clear()


def drain(int fd):
    """Read what ``open_waker``'s descriptor has got."""
    with contextlib.suppress(BlockingIOError):
        os.read(fd, 4096)
