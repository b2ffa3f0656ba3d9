# cython: language_level=3
"""A file that appears whole or not at all; also for a thread that has no GIL.

None of what the watchdog's thread calls here is traced, which would take the GIL.
"""

cimport cython
from libc.errno cimport EINTR, ENOENT, errno
from libc.stdio cimport rename
from posix.stat cimport S_ISREG, fstat, lstat, stat, struct_stat
from posix.types cimport mode_t
from posix.unistd cimport close, geteuid, unlink, write

import os

cdef extern from "fcntl.h" nogil:
    int O_CLOEXEC, O_CREAT, O_EXCL, O_NOCTTY, O_NONBLOCK, O_TRUNC, O_WRONLY
    int open(const char* path, int flags, ...)

cdef extern from "sys/stat.h" nogil:
    int fchmod(int fd, mode_t mode)


@cython.linetrace(False)
cdef int write_file(
    const char* path, const char* fresh, const char* first, size_t first_size, const char* second, size_t second_size
) noexcept nogil:
    """See ``replace_file``; the number of the error, or 0."""
    cdef struct_stat found, output
    cdef int fd = -1
    cdef bint there = stat(path, &found) == 0
    cdef int error
    # Our own output: /dev/stdout, say. A file that it goes to is neither cut off nor replaced, and there is one offset
    # for all that is written to it, which another open() would not share.
    if there and S_ISREG(found.st_mode):
        for fd in range(1, 3):
            if fstat(fd, &output) == 0 and output.st_dev == found.st_dev and output.st_ino == found.st_ino:
                return write_all(fd, first, first_size) or write_all(fd, second, second_size)
        fd = -1
    there = lstat(path, &found) == 0
    if not there and errno != ENOENT:
        return errno
    # Not a link, which somebody has made on purpose. Nor what has other names, or is owned by somebody else: the new
    # file would be one of its own.
    if not there or (S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == geteuid()):
        unlink(fresh)
        fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
        if fd < 0 and not there:
            return errno
    if fd >= 0:
        if there:
            fchmod(fd, found.st_mode & 0o7777)
        error = write_all(fd, first, first_size) or write_all(fd, second, second_size)
        if close(fd) != 0 and error == 0:
            error = errno
        if error == 0 and rename(fresh, path) != 0:
            error = errno
        if error != 0:
            unlink(fresh)
        if error == 0 or not there:
            return error
    # Not waiting: a named pipe that nobody reads must not hold the stop.
    fd = open(path, O_WRONLY | O_TRUNC | O_NONBLOCK | O_CLOEXEC | O_NOCTTY)
    if fd < 0:
        return errno
    error = write_all(fd, first, first_size) or write_all(fd, second, second_size)
    if close(fd) != 0 and error == 0:
        error = errno
    return error


@cython.linetrace(False)
cdef int write_all(int fd, const char* data, size_t size) noexcept nogil:
    cdef Py_ssize_t sent
    while size > 0:
        sent = write(fd, data, size)
        if sent < 0:
            if errno == EINTR:
                continue
            return errno
        data += sent
        size -= <size_t>sent
    return 0


def replace_file(bytes path, bytes fresh, bytes document):
    """Write ``document`` to ``path``; raises OSError.

    A file appears whole or not at all, also where it takes the place of an earlier one: it is written as ``fresh``,
    beside it, and renamed. What cannot be replaced so (a device, a pipe, a link, a file of somebody else's) is written
    in place, without waiting for a reader. To a file that is this process's own output one more line is written.
    """
    cdef int error
    cdef const char* where = path
    cdef const char* beside = fresh
    cdef const char* data = document
    cdef size_t size = len(document)
    with nogil:
        error = write_file(where, beside, data, size, NULL, 0)
    if error != 0:
        raise OSError(error, os.strerror(error))
