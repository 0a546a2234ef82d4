"""Sink: whatever takes a Request for a slot. See sink.pyx."""
from rproxy.wire.frames cimport Blob, Owner, Request

cdef enum:
    SLOTS = 16384


ctypedef void *Reference


cdef class Sink:
    cdef int send(self, Request request) except -1


cdef class LinkTable:
    """Slot -> Sink, for one protocol version."""
    cdef Reference[16384] sinks       # owned references, never NULL

    cdef int send(self, Request request) except -1


cdef class Call(Owner):
    """A request of rproxy's own: its reply goes to a Python callable."""
    cdef object callback           # called with the reply's bytes


cdef int refuse(Request request, bytes error) except -1
