"""Cut a multi-key request into one-slot pieces; merge their replies. See split.pyx."""
from rproxy.routing.specs cimport CommandSpec
from rproxy.wire.frames cimport Span


cdef class Plan:
    """How one request was cut."""
    cdef readonly CommandSpec spec     # of the whole request
    cdef readonly list frames          # bytes: one RESP array a piece
    cdef readonly list slots           # int: the slot of each piece
    cdef readonly Py_ssize_t total     # keys of the whole request
    cdef int *piece_of                 # piece index of each key, in request order
    cdef int *counts                   # keys of each piece

    cpdef bytes merge(self, list replies)


cdef Plan cut(CommandSpec spec, const char *frame, const Span *spans, Py_ssize_t argc, bint every_key)
