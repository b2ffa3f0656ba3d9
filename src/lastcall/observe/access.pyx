# cython: language_level=3
"""The access log: one line per response, formatted by compiled code and written once per loop turn.

    INFO:     127.0.0.1:54321 - "GET /path?x=1 HTTP/1.1" 200 OK
    INFO:     127.0.0.1:54321 - "GET /events HTTP/1.1" 200 OK (cut after 40318 bytes)

Everything that a client chose (and its address, which a proxy may report) is escaped: ``"`` and ``\\`` get a backslash,
control characters and bytes outside ASCII become ``\\xNN``. So a request is one line, whatever it contains.

A sink that takes no more lines never holds up a request. While nobody reads, up to ``LIMIT`` bytes wait in memory, and
lines after that are dropped; after an error (EPIPE, ENOSPC) the lines of that turn are. Once writing works again, one
line at the place of the gap says how many are missing.
"""

cimport cython

import logging

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItemWithError
from cpython.exc cimport PyErr_SetInterrupt
from cpython.list cimport PyList_CheckExact, PyList_GET_SIZE
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_Check, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_Check
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove

from lastcall.base.sinks cimport AccessSink
from lastcall.observe.output cimport Output

from lastcall.observe import style

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text)
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef enum:
    LIMIT = 64 * 1024   # bytes of lines that may wait; more are written before the turn ends
    FIRST = 8 * 1024    # bytes of the first allocation
    KEEP = 2 * LIMIT    # an empty buffer that is larger than this goes back to the allocator
    ESCAPED = 4         # one byte becomes at most \xNN
    MOST_LEFT = 4       # logs that have been replaced, each with up to LIMIT bytes; of another the lines are dropped
    FIXED = 64          # more than all separators of a line together

cdef const char* HEX = "0123456789abcdef"

# 0: as it is; 1: after a backslash; 2: as \xNN
cdef unsigned char[256] escape_class


cdef void _fill_classes() noexcept:
    cdef int i
    for i in range(256):
        escape_class[i] = 0 if 0x20 <= i < 0x7f else 2
    escape_class[c'"'] = 1
    escape_class[c"\\"] = 1


_fill_classes()


cdef char* put_raw(char* out, const char* data, Py_ssize_t size) noexcept:
    memcpy(out, data, size)
    return out + size


cdef char* put_escaped(char* out, const char* data, Py_ssize_t size) noexcept:
    """Copy ``data`` escaped; ``out`` has room for ``ESCAPED * size`` bytes. Returns where the next byte goes."""
    cdef Py_ssize_t i
    cdef unsigned char c, kind
    for i in range(size):
        c = <unsigned char>data[i]
        kind = escape_class[c]
        if kind == 0:
            out[0] = <char>c
            out += 1
        elif kind == 1:
            out[0] = c"\\"
            out[1] = <char>c
            out += 2
        else:
            out[0] = c"\\"
            out[1] = c"x"
            out[2] = HEX[c >> 4]
            out[3] = HEX[c & 15]
            out += 4
    return out


cdef char* put_port(char* out, long port) noexcept:
    cdef char[24] digits
    cdef int n = 0
    while True:
        digits[n] = <char>(c"0" + port % 10)
        n += 1
        port //= 10
        if port == 0:
            break
    while n > 0:
        n -= 1
        out[0] = digits[n]
        out += 1
    return out


cdef object encodable(object value):
    """``value`` as something that ``view`` can look into: bytes, or a str of ASCII only."""
    if PyBytes_Check(value):
        return value
    if not PyUnicode_Check(value):
        value = str(value)
    return value if PyUnicode_IS_ASCII(value) else value.encode("utf-8", "surrogatepass")


cdef const char* view(object value, Py_ssize_t* size) except NULL:
    """The bytes of what ``encodable`` returned; they live as long as ``value``."""
    if PyBytes_Check(value):
        size[0] = PyBytes_GET_SIZE(value)
        return PyBytes_AS_STRING(value)
    return PyUnicode_AsUTF8AndSize(value, size)


def escape(object value not None):
    """``value`` (str or bytes) as printable ASCII without quotes: what the access log shows of it."""
    cdef Py_ssize_t size
    cdef char* end
    value = encodable(value)
    cdef const char* data = view(value, &size)
    cdef bytearray out = bytearray(ESCAPED * size)
    cdef char* start = out
    end = put_escaped(start, data, size)
    return start[:end - start].decode("ascii")


def report(AccessSink sink not None, object client, object method, object target, object http_version, int status,
           double duration=0.0, long long bytes_sent=0, str mark=None):
    """Call ``sink.record``, which only compiled code can call, from Python (tests, benchmarks)."""
    sink.record(client, method, target, http_version, status, duration, bytes_sent, mark)


def wants(AccessSink sink not None):
    """``sink.wants()``, which only compiled code can call."""
    return sink.wants()


cdef class AccessLog(AccessSink):
    """The default access log, written to ``output``; ``colors`` adds those of a terminal.

    ``record`` formats, ``flush`` writes; the caller flushes once per loop turn, and once more when it stops.
    """

    def __cinit__(self, Output output not None, *, bint colors=False):
        self.enabled = True
        self._output = output
        self._colors = colors
        self._prefix = (style.level_prefix("INFO", logging.INFO, colors) + " ").encode()
        self._quote = (' - "' + (f"\x1b[{style.BOLD}m" if colors else "")).encode()
        self._endings = [None] * 600

    def __dealloc__(self):
        free(self._data)

    cdef void record(self, object client, object method, object target, object http_version, int status,
                     double duration, long long bytes_sent, str mark) noexcept:
        if self._full:
            self.dropped += 1
            return
        try:
            self._append(
                client, method, target, http_version, status,
                self._ending(status) if mark is None else self._marked_ending(status, mark, bytes_sent),
            )
        except Exception:  # no memory: a log line is worth less than the request
            self.dropped += 1
            return
        if self._end - self._start >= LIMIT:
            self.flush()
            self._full = self._end - self._start >= LIMIT

    cdef int _append(self, object client, object method, object target, object http_version, int status,
                     bytes ending) except -1:
        """Format one line into the buffer."""
        cdef object host = client, port = None
        cdef Py_ssize_t host_size, method_size, target_size, version_size
        cdef const char *host_data
        cdef const char *method_data
        cdef const char *target_data
        cdef const char *version_data
        cdef long port_number = -1
        cdef char* out
        if client is None:
            host = "-"
        elif PyTuple_Check(client) and PyTuple_GET_SIZE(client) == 2:
            host, port = client
            if PyLong_CheckExact(port) and 0 <= port <= 65535:
                port_number = port
            else:
                host = f"{host}:{port}"
        host, method, target = encodable(host), encodable(method), encodable(target)
        http_version = encodable(http_version)
        host_data = view(host, &host_size)
        method_data = view(method, &method_size)
        target_data = view(target, &target_size)
        version_data = view(http_version, &version_size)
        out = self._reserve(
            PyBytes_GET_SIZE(self._prefix) + PyBytes_GET_SIZE(self._quote) + PyBytes_GET_SIZE(ending) + FIXED
            + ESCAPED * (host_size + method_size + target_size + version_size)
        )
        out = put_raw(out, PyBytes_AS_STRING(self._prefix), PyBytes_GET_SIZE(self._prefix))
        out = put_escaped(out, host_data, host_size)
        if port_number >= 0:
            out[0] = c":"
            out = put_port(out + 1, port_number)
        out = put_raw(out, PyBytes_AS_STRING(self._quote), PyBytes_GET_SIZE(self._quote))
        out = put_escaped(out, method_data, method_size)
        out[0] = c" "
        out = put_escaped(out + 1, target_data, target_size)
        out = put_raw(out, " HTTP/", 6)
        out = put_escaped(out, version_data, version_size)
        out = put_raw(out, PyBytes_AS_STRING(ending), PyBytes_GET_SIZE(ending))
        self._end = out - self._data
        return 0

    cdef bytes _ending(self, int status):
        cdef bint known = 0 <= status < 600
        if known and self._endings[status] is not None:
            return <bytes>self._endings[status]
        reset = style.RESET if self._colors else ""
        cdef bytes ending = f'{reset}" {style.status_text(status, self._colors)}\n'.encode()
        if known:
            self._endings[status] = ending
        return ending

    cdef bytes _marked_ending(self, int status, str mark, long long bytes_sent):
        return self._ending(status)[:-1] + f"{style.mark_text(mark, bytes_sent)}\n".encode("ascii", "backslashreplace")

    cdef char* _reserve(self, Py_ssize_t size) except NULL:
        """Room for ``size`` more bytes after ``_end``."""
        cdef Py_ssize_t used = self._end - self._start, capacity
        cdef char* grown
        if self._capacity - self._end < size:
            if self._start > 0:
                memmove(self._data, self._data + self._start, used)
                self._start, self._end = 0, used
            if self._capacity - used < size:
                capacity = max(FIRST, 2 * self._capacity, used + size)
                grown = <char*>realloc(self._data, capacity)
                if grown == NULL:
                    raise MemoryError
                self._data, self._capacity = grown, capacity
        return self._data + self._end

    cpdef void flush(self) noexcept:
        """Write what is there, as far as that is possible without waiting."""
        if self._start == self._end:
            return
        if self.dropped and not self._full and not self._announce():
            if self._output.error:
                self._discard()
            return
        self._start += self._output.put(self._data + self._start, self._end - self._start, 0)
        if self._output.error:
            self._discard()
        elif self._start == self._end:
            self._start = self._end = 0
            if self._capacity > KEEP:
                free(self._data)
                self._data, self._capacity = NULL, 0
            if self._full:
                self._full = False
                self._announce()

    cdef bint _announce(self) noexcept:
        """Say how many lines were dropped; False if that could not be written."""
        cdef bytes line
        try:
            line = b"%s%s lastcall could not write %d line%s of the access log\n" % (
                b"\n" if self._output.torn else b"",
                style.level_prefix("WARNING", logging.WARNING, self._colors).encode(),
                self.dropped,
                b"" if self.dropped == 1 else b"s",
            )
        except MemoryError:
            return False
        if self._output.put(line, PyBytes_GET_SIZE(line), 0) < PyBytes_GET_SIZE(line):
            return False
        self.dropped = 0
        return True

    cdef void _discard(self) noexcept:
        """Drop what could not be written, and count it."""
        cdef Py_ssize_t i
        for i in range(self._start, self._end):
            if self._data[i] == c"\n":
                self.dropped += 1
        self._start = self._end = 0
        self._full = False

    cdef bint finish(self) noexcept:
        """It gets no more lines: write what is left. Whether that is done, or can never be: then ``dropped`` is left."""
        self.flush()
        if self._start != self._end:
            return False
        return not self.dropped or self._announce() or self._output.error != 0

    cdef bint goes_where(self, AccessLog other) noexcept:
        """Whether its lines are written as, and to where, those of ``other`` are."""
        return (
            self._output.fd == other._output.fd and self._output._stream is other._output._stream
            and self._colors == other._colors
        )


@cython.final
cdef class _Watched:
    """A value in a dictionary that has been looked at, and, if it is a list, what was in it."""

    cdef dict namespace
    cdef object key
    cdef object value                  # None: it was not there
    cdef tuple items

    def __init__(self, dict namespace not None, object key):
        self.namespace = namespace
        self.key = key
        self.value = namespace.get(key)
        self.items = tuple(self.value) if PyList_CheckExact(self.value) else None

    cdef bint changed(self) except -1:
        cdef PyObject* found = PyDict_GetItemWithError(self.namespace, self.key)
        cdef Py_ssize_t i
        cdef list content
        if found != <PyObject*>self.value:
            return found is not NULL or self.value is not None
        if self.items is not None:
            content = <list>self.value
            if PyList_GET_SIZE(content) != PyTuple_GET_SIZE(self.items):
                return True
            for i in range(PyTuple_GET_SIZE(self.items)):
                if <PyObject*>content[i] != <PyObject*>self.items[i]:
                    return True
        return False


cdef class ChosenAccess(AccessSink):
    """The sink that fits the logger as it is: an application may set a level, or add a filter, at any time.

    ``choose()`` returns the sink for now, ``watched()`` the places (dictionary, key) at which another choice would show.
    The first response after each ``flush`` looks at them, which takes a quarter of a microsecond: so a change counts for the
    response that is next, or, under load, from the next turn of the loop on.

    A log that fits no more, and whose descriptor takes nothing at present, is kept until its lines are out.
    """

    def __init__(self, object choose not None, object watched not None):
        self.enabled = True
        self._choose = choose
        self._find_watched = watched
        self._look()

    cdef void record(self, object client, object method, object target, object http_version, int status,
                     double duration, long long bytes_sent, str mark) noexcept:
        self._see()
        self.sink.record(client, method, target, http_version, status, duration, bytes_sent, mark)

    cdef bint wants(self) noexcept:
        self._see()
        return self.sink.enabled

    cpdef void flush(self) noexcept:
        """Write what is there, as far as that is possible without waiting."""
        self._looked = False
        if self._left is not None:
            try:
                self._finish_left()
            except MemoryError:
                pass
        self.sink.flush()

    cdef void _see(self) noexcept:
        """Look, if that is due, whether another sink fits by now."""
        if self._looked:
            return
        self._looked = True
        try:
            if self._changed():
                self._look()
        except Exception:  # what an application has put there may do anything: then as before
            pass

    cdef bint _changed(self) except -1:
        cdef _Watched one
        for one in self._watched:
            if one.changed():
                return True
        return False

    cdef int _look(self) except -1:
        cdef AccessSink chosen
        cdef list left = [] if self._left is None else self._left
        # In this order: what another thread changes meanwhile shows at the next look.
        self._watched = [_Watched(namespace, key) for namespace, key in self._find_watched()]
        chosen = self._choose()
        if isinstance(self.sink, AccessLog):
            left.append(self.sink)
        if isinstance(chosen, AccessLog):
            for one in left:
                if (<AccessLog>one).goes_where(<AccessLog>chosen):
                    chosen = one           # what it has left comes first
                    left.remove(one)
                    break
        self.sink = chosen
        self._left = left
        return self._finish_left()

    cdef int _finish_left(self) except -1:
        """Write what is left in logs that fitted before; count what cannot be."""
        cdef AccessLog log
        cdef list still = []
        for log in self._left:
            if log.finish():
                self._lost += log.dropped
            else:
                still.append(log)
        while len(still) > MOST_LEFT:
            log = still.pop(0)
            log._discard()
            self._lost += log.dropped
        self._left = still if still else None
        if self._lost and isinstance(self.sink, AccessLog):
            (<AccessLog>self.sink).dropped += self._lost
            self._lost = 0
        return 0


cdef class LoggerAccess(AccessSink):
    """The access log through ``logger``, for whoever has set up more than the default.

    The record's ``args`` are uvicorn's, ``(client_addr, method, full_path, http_version, status_code)``, escaped, so
    that formatters written for it work; ``duration`` (seconds), ``bytes_sent`` (of the body) and ``mark`` (None, or what
    the line says of a response that was cut) are attributes.
    """

    def __cinit__(self, object logger not None):
        self.enabled = True
        self._logger = logger

    cdef void record(self, object client, object method, object target, object http_version, int status,
                     double duration, long long bytes_sent, str mark) noexcept:
        try:
            if client is None:
                client = "-"
            elif PyTuple_Check(client) and PyTuple_GET_SIZE(client) == 2:
                client = f"{client[0]}:{client[1]}"
            self._logger.info(
                '%s - "%s %s HTTP/%s" %d' if mark is None
                else '%s - "%s %s HTTP/%s" %d' + style.mark_text(mark, bytes_sent).replace("%", "%%"),
                escape(client), escape(method), escape(target), escape(http_version), status,
                extra={"duration": duration, "bytes_sent": bytes_sent, "mark": mark},
            )
        except KeyboardInterrupt:
            PyErr_SetInterrupt()  # it cannot leave a function that does not raise; so the next line of Python gets it
        except BaseException:  # a filter or a handler of the application's
            self._complain()

    cdef void _complain(self) noexcept:
        """Report the first failure, on the other logger; the ones after it would say the same."""
        if self._complained:
            return
        self._complained = True
        try:
            logging.getLogger("lastcall.error").exception("The access log's logger failed")
        except BaseException:
            pass
