"""Fanout: the pieces of one request, counted home and merged. See fanout.pyx."""
from rproxy.upstream.sink cimport LinkTable
from rproxy.wire.frames cimport Blob, Owner, Request, Span


cdef class Fanout(Owner):
    cdef Request whole             # the client's request
    cdef object merge              # callable(replies): makes one reply of them
    cdef LinkTable table           # where pieces of several slots go; None where each names its node
    cdef list replies              # bytes of each piece's reply, None until it comes; None for a ghost
    cdef Py_ssize_t missing        # pieces without a reply


cdef int launch(Request whole, LinkTable table, const Span *spans, Py_ssize_t argc) except -1
cdef bint launch_apart(Request whole, LinkTable table) except -1
