# cython: language_level=3
"""A descriptor that log lines go to, and that the server never waits for.

Standard output is shared: with the application's ``print``, with sibling workers, often with the shell that started us.
So O_NONBLOCK, which belongs to the open file and not to our number for it, is not ours to set. Instead every write asks
for itself:

=============  =======================================================================================================
pipe           ``pwritev2(RWF_NOWAIT)`` (Linux 6.4), at most PIPE_BUF bytes, cut after a line: a write is whole or not
               at all, so lines of several processes never mix. Without that call: ``poll``, then the same write;
               a ready pipe has room for PIPE_BUF bytes (POSIX), unless another process takes it in between.
socket         ``send(MSG_DONTWAIT)``. (Under systemd, standard output is a socket.)
terminal       Opened once more by its name, with O_NONBLOCK for that open file alone. Where this is refused (a terminal
               of another user): ``poll``, then at most 256 bytes, which may still wait for a terminal that is stopped.
anything else  ``write``: files and null devices do not wait for a reader.
=============  =======================================================================================================

The GIL is kept during a write, which does not block; it is released while waiting.
"""

import os
import stat

from cpython.exc cimport PyErr_SetInterrupt
from libc.errno cimport EAGAIN, EBADF, EINTR, EINVAL, EIO, ENOSYS, EOPNOTSUPP, EPERM, errno
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close, write

cdef extern from *:
    """
    #include <errno.h>
    #include <limits.h>
    #include <poll.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    #include <unistd.h>

    #ifndef PIPE_BUF
    #define PIPE_BUF _POSIX_PIPE_BUF
    #endif

    static ssize_t lastcall_write_now(int fd, const char *data, size_t size)
    {
    #ifdef RWF_NOWAIT
        struct iovec part;
        part.iov_base = (void *)data;
        part.iov_len = size;
        return pwritev2(fd, &part, 1, -1, RWF_NOWAIT);
    #else
        (void)fd; (void)data; (void)size;
        errno = EOPNOTSUPP;
        return -1;
    #endif
    }

    static int lastcall_poll_out(int fd, int milliseconds)
    {
        struct pollfd entry;
        entry.fd = fd;
        entry.events = POLLOUT;
        entry.revents = 0;
        return poll(&entry, 1, milliseconds);
    }

    static ssize_t lastcall_polled_write(int fd, const char *data, size_t size)
    {
        int ready = lastcall_poll_out(fd, 0);
        if (ready == 0)
            errno = EAGAIN;
        return ready > 0 ? write(fd, data, size) : -1;
    }
    """
    Py_ssize_t write_now "lastcall_write_now"(int fd, const char* data, size_t size)
    Py_ssize_t polled_write "lastcall_polled_write"(int fd, const char* data, size_t size)
    int poll_out "lastcall_poll_out"(int fd, int milliseconds) nogil
    Py_ssize_t send(int fd, const char* data, size_t size, int flags)
    const int MSG_DONTWAIT
    const int PIPE_BUF

cdef enum Kind:
    PLAIN
    PIPE
    SOCKET
    REOPENED   # a terminal, with an open file of our own
    TERMINAL   # a terminal that could not be opened again

cdef enum:
    TERMINAL_CHUNK = 256


# Who owns the terminal while a stop goes on (observe.terminal), or None. A process has one terminal, so this is global.
cdef object OWNER = None

# A Ctrl-C has come, and the terminal has shown it as ^C: whatever line is next begins in a row of its own.
cdef bint ECHOED = False


def own_terminal(owner):
    """Make ``owner`` the one whose ``begin()`` and ``end()`` surround each write to its ``device``; None: nobody.

    False, and nothing changed, where there is one already.
    """
    global OWNER
    if owner is not None and OWNER is not None:
        return False
    OWNER = owner
    return True


def expect_echo():
    """SIGINT has come; in a signal handler, which must not write itself."""
    global ECHOED
    ECHOED = True


def pass_echo(int fd):
    """Whether the terminal behind ``fd`` has shown a ^C since the last call: to be called before a write to it."""
    global ECHOED
    if not ECHOED:
        return False
    ECHOED = False
    import termios  # noqa: PLC0415 - rare

    try:
        flags = termios.tcgetattr(fd)[3]
    except (termios.error, OSError):
        return False
    wanted = termios.ECHO | termios.ECHOCTL | termios.ISIG
    return flags & wanted == wanted


cdef Py_ssize_t whole_lines(const char* data, Py_ssize_t limit) noexcept:
    """How many of the first ``limit`` bytes are whole lines; ``limit`` if not even the first line is."""
    cdef Py_ssize_t n = limit
    while n > 0:
        if data[n - 1] == c"\n":
            return n
        n -= 1
    return limit


cdef int open_terminal(int fd) except -2:
    """Open the terminal behind ``fd`` once more, for writes that do not wait, and return the descriptor, or -1."""
    try:
        name = os.ttyname(fd)
        if name.endswith("ptmx"):  # the other side of a pseudo-terminal: opening that makes a new one
            return -1
        return os.open(name, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1


cdef double monotonic() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


cdef class Output:
    """Writes to the descriptor ``fd`` without ever raising, and waits only where it is told how long it may.

    ``stream`` is the text stream that owns ``fd``, if there is one. What the application has printed into its buffer is
    written out first, so that the order stays; and once the stream is closed nothing is written any more, because the
    number ``fd`` may belong to something else by then. ``nowait=False`` is for kernels without ``RWF_NOWAIT``, and for
    terminals that cannot be opened again.

    Raises OSError if ``fd`` is not open.
    """

    def __cinit__(self, int fd, object stream=None, *, bint nowait=True):
        cdef int target
        status = os.fstat(fd)
        mode = status.st_mode
        self.fd = self._target = fd
        self._stream = stream
        self._nowait = nowait
        if stat.S_ISFIFO(mode):
            self._kind = PIPE
        elif stat.S_ISSOCK(mode):
            self._kind = SOCKET
        elif os.isatty(fd):
            self._kind = TERMINAL
            self.device = status.st_rdev
            self._nowait = False
            if nowait and (target := open_terminal(fd)) >= 0:
                self._kind, self._target = REOPENED, target
        else:
            self._kind = PLAIN

    def __dealloc__(self):
        if self._kind == REOPENED:
            close(self._target)

    def write(self, bytes data, double patience=0.0):
        """Write ``data``, waiting at most ``patience`` seconds in all, and return how many bytes were written.

        ``error`` then is the errno of what went wrong, or 0; bytes that are left nevertheless found no room in time.
        """
        return self.put(data, len(data), patience)

    cdef bint ready(self) noexcept:
        """Whether a write would find room. An error counts as room: the write is what reports it."""
        return self._kind == PLAIN or poll_out(self._target, 0) != 0

    cdef Py_ssize_t put(self, const char* data, Py_ssize_t size, double patience) noexcept:
        """``write`` for compiled callers."""
        self.error = 0
        if self._stream is not None and not self._settle():
            self.error = EBADF
            return 0
        if (OWNER is not None or ECHOED) and self.device is not None:
            return self._put_in_turn(data, size, patience)
        return self._put(data, size, patience)

    def write_as_owner(self, bytes data):
        """``write`` for the terminal's owner itself, without waiting."""
        self.error = 0
        return self._put(data, len(data), 0.0)

    cdef Py_ssize_t _put_in_turn(self, const char* data, Py_ssize_t size, double patience) noexcept:
        """``_put`` on a terminal that has an owner, who takes its list away meanwhile, or a ^C at the cursor."""
        cdef Py_ssize_t done
        cdef bint ours = False
        owner = OWNER
        try:
            if owner is not None and owner.device == self.device:
                ours = owner.begin(line=True)
            elif pass_echo(self.fd):
                self._put("\n", 1, 0.0)
        except KeyboardInterrupt:
            PyErr_SetInterrupt()
        except Exception:
            pass
        done = self._put(data, size, patience)
        if ours:
            try:
                owner.end()
            except KeyboardInterrupt:
                PyErr_SetInterrupt()
            except Exception:
                pass
        return done

    cdef Py_ssize_t _put(self, const char* data, Py_ssize_t size, double patience) noexcept:
        cdef Py_ssize_t done = 0, n
        while done < size:
            n = self._write_some(data + done, size - done)
            if n > 0:
                done += n
            elif n == 0:  # POSIX leaves this open for devices; a loop must end all the same
                self.error = EIO
                break
            elif errno == EAGAIN:
                if patience <= 0:
                    break
                patience = self._wait(patience)
            elif errno != EINTR:
                self.error = errno
                break
        if done:
            self.torn = data[done - 1] != c"\n"
        return done

    cdef bint _settle(self) noexcept:
        """Write out what the stream holds; False if it is closed. A failure is the stream's own: it keeps its data."""
        try:
            if self._stream.closed:
                return False
            if self.ready():
                self._stream.flush()
        except KeyboardInterrupt:
            PyErr_SetInterrupt()  # it cannot leave a function that does not raise; so the next line of Python gets it
        except (OSError, ValueError):
            pass
        return True

    cdef Py_ssize_t _write_some(self, const char* data, Py_ssize_t size) noexcept:
        """One write that does not block: what it wrote, or -1 and errno."""
        cdef Py_ssize_t n
        cdef int chunk
        if self._kind == PLAIN or self._kind == REOPENED:
            return write(self._target, data, size)
        if self._kind == SOCKET:
            return send(self._target, data, size, MSG_DONTWAIT)
        chunk = PIPE_BUF if self._kind == PIPE else TERMINAL_CHUNK
        if size > chunk:
            size = whole_lines(data, chunk)
        if self._nowait:
            n = write_now(self._target, data, size)
            # Unknown to the kernel, to this descriptor or to a sandbox's filter: the other way from now on.
            if n >= 0 or errno not in (EOPNOTSUPP, ENOSYS, EINVAL, EPERM):
                return n
            self._nowait = False
        return polled_write(self._target, data, size)

    cdef double _wait(self, double patience) noexcept:
        """Wait for room; return how much of ``patience`` (seconds) is left."""
        cdef double start = monotonic()
        cdef int milliseconds = <int>min(patience * 1000 + 1, 60_000.0)
        with nogil:
            poll_out(self._target, milliseconds)
        return patience - (monotonic() - start)
