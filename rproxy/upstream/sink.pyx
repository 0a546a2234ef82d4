# cython: language_level=3, boundscheck=False, wraparound=False
"""Sinks and the table that names one for every slot.

The straight path asks the table for the slot's Sink and sends: whether that is the node's Link or a Gate that holds the
request for a while is settled here, in the table, once for all requests, and not asked by each of them.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport free, realloc

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
        self.kept, self.uses = [], []
        self._place(first)             # place 0: every slot's index is 0 already
        self.uses[0] = SLOTS

    def __dealloc__(self):
        free(self.sinks)

    cdef int send(self, Request request) except -1:
        return (<Sink>self.sinks[self.index[request.slot]]).send(request)

    def route(self, Request request not None):
        """Send the request to its slot's Sink."""
        self.send(request)

    def __getitem__(self, int slot):
        if not 0 <= slot < SLOTS:
            raise IndexError(f"no slot {slot}")
        return self.kept[self.index[slot]]

    def __setitem__(self, int slot, Sink sink not None):
        cdef int place, old
        if not 0 <= slot < SLOTS:
            raise IndexError(f"no slot {slot}")
        place, old = self._place(sink), self.index[slot]
        self.index[slot] = place
        self.uses[place] += 1
        self._drop(old, 1)

    def replace(self, Sink old not None, Sink new not None):
        """Put `new` wherever `old` stands; how many slots that were."""
        cdef int slot, count = 0, before, place
        if old not in self.kept:
            return 0
        before, place = self.kept.index(old), self._place(new)
        for slot in range(SLOTS):
            if self.index[slot] == before:
                self.index[slot] = place
                count += 1
        self.uses[place] += count
        self._drop(before, count)
        return count

    cdef int _place(self, Sink sink) except -1:
        """Where the Sink is kept, now at the latest."""
        cdef Reference *grown
        cdef int place
        if sink in self.kept:
            return self.kept.index(sink)
        if None in self.kept:
            place = self.kept.index(None)
        else:
            place = len(self.kept)
            grown = <Reference *>realloc(self.sinks, (place + 1) * sizeof(Reference))
            if grown == NULL:
                raise MemoryError
            self.sinks = grown
            self.kept.append(None)
            self.uses.append(0)
        self.kept[place], self.uses[place] = sink, 0
        self.sinks[place] = <Reference>sink
        return place

    cdef int _drop(self, int place, int count) except -1:
        """`count` slots use the place no more: let go of a Sink that none uses."""
        self.uses[place] -= count
        if self.uses[place] == 0:
            self.kept[place] = None
        return 0


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
    cdef Owner owner = request.owner
    return owner is not None and owner.take_apart(request)
