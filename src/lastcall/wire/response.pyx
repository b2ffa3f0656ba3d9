# cython: language_level=3
"""HTTP/1.1 response heads as bytes: the status line and the field lines of a checked head (RFC 9112 4 and 5)."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM
from libc.string cimport memcpy

from http import HTTPStatus

from lastcall.wire.head cimport ResponseHead

cdef enum:
    LINE_OVERHEAD = 4            # ": " and CRLF
    HIGHEST_STATUS = 999

cdef list STATUS_LINES = [None] * (HIGHEST_STATUS + 1)

for _status in HTTPStatus:
    STATUS_LINES[_status] = f"HTTP/1.1 {_status.value} {_status.phrase}\r\n".encode("ascii")


cdef bytes status_line(int status):
    """``HTTP/1.1 200 OK`` with its CRLF. A status without a registered phrase gets an empty one (RFC 9112 4)."""
    cdef bytes line = <bytes>STATUS_LINES[status]
    if line is None:
        line = f"HTTP/1.1 {status} \r\n".encode("ascii")
        STATUS_LINES[status] = line
    return line


cdef Py_ssize_t fields_size(ResponseHead head) noexcept:
    """How many bytes ``put_fields`` writes."""
    return head.size + LINE_OVERHEAD * PyList_GET_SIZE(head.pairs)


cdef char* put_fields(char* at, ResponseHead head) noexcept:
    """Write the field lines, CRLF after each; returns where they end. There must be room for ``fields_size``."""
    cdef PyObject* pair
    cdef PyObject* text
    cdef Py_ssize_t n, i
    for i in range(PyList_GET_SIZE(head.pairs)):
        pair = PyList_GET_ITEM(head.pairs, i)
        text = PyTuple_GET_ITEM(<object>pair, 0)
        n = PyBytes_GET_SIZE(<object>text)
        memcpy(at, PyBytes_AS_STRING(<object>text), n)
        at += n
        at[0] = c":"
        at[1] = c" "
        at += 2
        text = PyTuple_GET_ITEM(<object>pair, 1)
        n = PyBytes_GET_SIZE(<object>text)
        memcpy(at, PyBytes_AS_STRING(<object>text), n)
        at += n
        at[0] = c"\r"
        at[1] = c"\n"
        at += 2
    return at


def encoded(ResponseHead head not None):
    """Status line and field lines as one piece, for tests and tools."""
    cdef bytes lines = PyBytes_FromStringAndSize(NULL, fields_size(head))
    put_fields(PyBytes_AS_STRING(lines), head)
    return status_line(head.status) + lines
