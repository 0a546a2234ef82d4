"""Cut a multi-key request into one-slot pieces; merge their replies. See split.pyx."""
from rproxy.routing.specs cimport CommandSpec
from rproxy.wire.frames cimport Span


cdef struct Piece:
    int slot               # of all its keys
    int keys               # how many
    Py_ssize_t size        # bytes of its arguments behind the command's name
    char *at               # where its next argument is written


cdef struct Part:
    const char *at         # first byte of a piece's reply that is not worked through
    const char *end        # one past its last byte


cdef class Plan:
    """How one request was cut."""
    cdef readonly CommandSpec spec     # of the whole request
    cdef readonly list frames          # bytes: one RESP array a piece
    cdef readonly list slots           # int: the slot of each piece
    cdef readonly Py_ssize_t total     # keys of the whole request
    cdef int *piece_of                 # piece index of each key, in request order
    cdef int *counts                   # keys of each piece

    cpdef bytes merge(self, list replies)
    cdef int _cut(
        self, const char *frame, const Span *spans, Py_ssize_t argc, bint every_key) except -1
    cdef int _build(
        self, const char *frame, const Span *spans, Piece *pieces, Py_ssize_t count) except -1
    cdef bytes _merge_arrays(self, list replies)
    cdef Py_ssize_t _open_arrays(self, list replies, Part *parts) except -2
    cdef bytes _interleave(self, Part *parts, Py_ssize_t size)
    cdef bytes _merge_sums(self, list replies)
    cdef bytes _merge_statuses(self, list replies)
    cdef bytes _misshapen(self)


cdef enum:
    HEAD_ROOM = 24         # bytes of a type, a 64-bit number and CRLF


cdef Py_ssize_t write_head(char *head, char kind, long long number) noexcept
cdef Plan cut(
    CommandSpec spec, const char *frame, const Span *spans, Py_ssize_t argc, bint every_key)
