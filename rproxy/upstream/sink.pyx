# cython: language_level=3, boundscheck=False, wraparound=False
"""Sinks and the table that names one for every slot.

The straight path asks the table for the slot's Sink and sends: whether that is the node's Link or a Gate that holds the
request for a while is settled here, in the table, once for all requests, and not asked by each of them.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF

from rproxy.wire.frames cimport GATED, GHOST, Blob, Owner, Request


cdef class Sink:

    cdef int send(self, Request request) except -1:
        """Take the request: from here on the Sink sees to it that its owner hears an answer."""
        raise RuntimeError(f"{type(self).__name__} takes no requests")

    def take(self, Request request not None):
        """Python's way to `send`."""
        self.send(request)


@cython.final
cdef class LinkTable:

    def __cinit__(self, Sink first not None):
        cdef int slot
        for slot in range(SLOTS):
            Py_INCREF(first)
            self.sinks[slot] = <void *>first

    def __dealloc__(self):
        cdef int slot
        for slot in range(SLOTS):
            if self.sinks[slot] != NULL:
                Py_DECREF(<object>self.sinks[slot])

    cdef int send(self, Request request) except -1:
        return (<Sink>self.sinks[request.slot]).send(request)

    def route(self, Request request not None):
        """Send the request to its slot's Sink."""
        self.send(request)

    def __getitem__(self, int slot):
        if not 0 <= slot < SLOTS:
            raise IndexError(f"no slot {slot}")
        return <Sink>self.sinks[slot]

    def __setitem__(self, int slot, Sink sink not None):
        if not 0 <= slot < SLOTS:
            raise IndexError(f"no slot {slot}")
        Py_INCREF(sink)
        old = <Sink>self.sinks[slot]
        self.sinks[slot] = <void *>sink
        Py_DECREF(old)

    def replace(self, Sink old not None, Sink new not None):
        """Put `new` wherever `old` stands; how many slots that were."""
        cdef int slot, count = 0
        for slot in range(SLOTS):
            if self.sinks[slot] == <void *>old:
                self[slot] = new
                count += 1
        return count


@cython.final
cdef class Call(Owner):

    def __cinit__(self, callback):
        self.callback = callback

    cdef int deliver(self, Request request, const char *reply, Py_ssize_t size, Blob blob) except -1:
        self.callback(PyBytes_FromStringAndSize(reply, size))
        return 0


cdef int refuse(Request request, bytes error) except -1:
    """Answer the request with an error of our own; a Gate that counts it home is told."""
    cdef Owner owner = request.owner
    if not request.flags & GHOST and owner is not None:
        owner.deliver(request, PyBytes_AS_STRING(error), PyBytes_GET_SIZE(error), None)
    if request.flags & GATED:
        request.gate.came_home(request)
    return 0


def call(bytes frame not None, callback, int slot=-1):
    """A request of rproxy's own, whose reply's bytes `callback` gets."""
    cdef Request request = Request(frame)
    request.owner = Call(callback)
    request.slot = slot
    return request


def answer(Request request not None, bytes error not None):
    """Answer the request with bytes of our own."""
    refuse(request, error)


def take_apart(Request request not None):
    """Whether the request's owner takes it back, to send it in one-key pieces."""
    return request.owner is not None and request.owner.take_apart(request)
