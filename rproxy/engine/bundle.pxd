"""Bundle: a transaction that arrived whole, sent as one request. See bundle.pyx."""
from rproxy.wire.frames cimport Blob, Owner, Request


cdef class Bundle(Owner):
    cdef Owner session             # gets all replies together
    cdef Blob frames               # MULTI and the commands behind it, as they came
    cdef Py_ssize_t size           # bytes of them
    cdef int count                 # how many frames
    cdef int slot                  # of all keys; -1 before the first
    cdef Blob head                 # replies that have come
    cdef Py_ssize_t head_size      # bytes of them
    cdef int came                  # how many

    cdef int add(self, const char *frame, Py_ssize_t size, int slot) except -1
    cdef Request close(self, const char *frame, Py_ssize_t size)
    cdef int _note(self, const char *reply, Py_ssize_t size) except -1
    cdef list requests(self)


cdef class Portion(Owner):
    cdef Request whole             # the client's EXEC
    cdef object callback           # gets the reply's bytes

    cdef bint _is_wanted(self) noexcept
