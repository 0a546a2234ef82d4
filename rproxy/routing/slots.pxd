"""A request -> its slot. See slots.pyx."""
from rproxy.routing.specs cimport CommandSpec
from rproxy.wire.frames cimport Span


cdef enum NoSlot:
    NO_KEYS = -1           # names no key: any node will do
    CROSS_SLOT = -2        # names keys of several slots
    BAD_KEYS = -3          # its keys cannot be found (bad numkeys ...): any node gives the right error


cdef int key_slot(const char *key, Py_ssize_t size) noexcept nogil
cdef int assign_slot(CommandSpec spec, const char *frame, const Span *spans, Py_ssize_t argc) except? -9
