"""A request -> its slot. See slots.pyx."""
from rproxy.routing.specs cimport PLACES_LIMIT, CommandSpec
from rproxy.wire.frames cimport Span


cdef enum NoSlot:
    NO_KEYS = -1           # names no key: any node will do
    CROSS_SLOT = -2        # names keys of several slots
    BAD_KEYS = -3          # keys that cannot be found (bad numkeys ...): any node has the error


cdef enum:
    RANGES_LIMIT = PLACES_LIMIT    # most ranges of keys that a request can have


cdef struct KeyRange:
    Py_ssize_t first       # index of the first key among the arguments
    Py_ssize_t last        # index of the last one, or a little behind it
    Py_ssize_t step        # distance between keys


cdef class Arguments:
    """A request made of Python bytes, in the shape that the C functions take."""
    cdef bytes frame       # the RESP array
    cdef Span *spans       # its arguments
    cdef Py_ssize_t argc   # how many


cdef int key_slot(const char *key, Py_ssize_t size) noexcept nogil
cdef int assign_slot(
    CommandSpec spec, const char *frame, const Span *spans, Py_ssize_t argc) except? -9
cdef int find_keys(
    CommandSpec spec, const char *frame, const Span *spans, Py_ssize_t argc,
    KeyRange *found) noexcept
