"""Gate: a Sink that holds requests, in order, until their slot is ready. See gate.pyx."""
from rproxy.upstream.sink cimport Sink
from rproxy.wire.frames cimport Fifo, Request


cdef class Gate(Sink):
    cdef object lane               # Lane: opens the gate, refuses on its behalf
    cdef readonly str reason       # why it is shut, for logs and errors
    cdef readonly object pool      # the Pool whose node is not ready, or None
    cdef readonly int slot         # the one slot that it stands for, or -1
    cdef Fifo returned             # requests that came back, oldest first; they go before `held`
    cdef Fifo held                 # requests that have not been sent yet, oldest first
    cdef readonly Py_ssize_t size  # bytes of both
    cdef Py_ssize_t max_size       # bytes it may hold
    cdef double hold_time          # seconds that a request may wait here
    cdef public double opens_at    # monotonic seconds before which it stays shut
    cdef readonly int outstanding  # requests sent before it was shut that have not come home
    cdef public bytes refusing     # the error that it answers at once, or None while it holds
    cdef public bint timed         # a timer is set to try it again

    cdef int send(self, Request request) except -1
    cdef int bring_back(self, Request request) except -1
    cdef int home(self, Request request) except -1
    cdef int _admit(self, Request request) except -1
    cdef int _expire(self, Fifo *queue, double now) except -1
