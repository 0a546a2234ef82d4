"""Sink: whatever takes a Request for a slot. See sink.pyx."""
from rproxy.wire.frames cimport Blob, Owner, Request

cdef enum:
    SLOTS = 16384


ctypedef void *Reference


cdef class Sink:
    cdef int send(self, Request request) except -1


cdef class LinkTable:
    """Slot -> Sink, for one protocol version."""
    cdef unsigned short[16384] index   # slot -> its place in `sinks`: small, so that it stays in the cache
    cdef list kept                     # the Sinks, None where a place is free
    cdef Reference *sinks              # the same Sinks, borrowed from `kept`
    cdef list uses                     # slots of each place

    cdef int send(self, Request request) except -1
    cdef int _place(self, Sink sink) except -1
    cdef int _drop(self, int place, int count) except -1


cdef class Call(Owner):
    """A request of rproxy's own: its reply goes to a Python callable."""
    cdef object callback           # called with the reply's bytes


cdef int refuse(Request request, bytes error) except -1
