"""Crowd: the sessions that hear one topic. See crowd.pyx."""
from rproxy.engine.session cimport Session
from rproxy.routing.pins cimport Pins
from rproxy.upstream.feed cimport Listener
from rproxy.wire.frames cimport Blob


cdef class Crowd(Listener):
    cdef dict sessions             # Session -> None
    cdef bint lines                # what is heard are lines, the same in both protocol versions
    cdef Pins pins                 # messages may hold keys that are pinned by these; or None

    cdef int hear(self, char *frame, Py_ssize_t size) except -1
    cdef list _tell(self, char *frame, Py_ssize_t size)
    cdef list _share(self, char *frame, Py_ssize_t size)
