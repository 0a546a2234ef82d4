# cython: language_level=3, boundscheck=False, wraparound=False
"""A request for several slots or nodes: sent in pieces, counted home, merged.

The pieces are ordinary Requests whose owner is the Fanout, so redirects and gates treat each of them alone. A request for
several slots is cut by slot. A piece that a node refuses with TRYAGAIN, because its slot is half migrated, is cut again into
one-key pieces, which always succeed. A request for several nodes goes to each of them as it is; such a piece names the node
that alone may answer it. It is never taken for a read-only request, which another node might answer as well.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from rproxy.errors import TAIL_TOO_LONG
from rproxy.routing.slots cimport NO_KEYS
from rproxy.routing.specs cimport CommandSpec
from rproxy.routing.split cimport Plan, cut
from rproxy.upstream.sink cimport LinkTable, refuse
from rproxy.wire.frames cimport (
    APART, GHOST, READONLY_REQUEST, Blob, FrameReader, Owner, Request, Scratch, Span,
)

cdef Scratch NO_SCRATCH = Scratch(16)


@cython.final
cdef class Fanout(Owner):

    cdef int deliver(self, Request piece, const char *reply, Py_ssize_t size, Blob blob) except -1:
        cdef bytes merged
        cdef Owner owner = self.whole.owner
        if self.whole.flags & GHOST or owner is None:
            self.replies = None
            return 0
        self.replies[piece.index] = PyBytes_FromStringAndSize(reply, size)
        self.missing -= 1
        if self.missing:
            return owner.gather(self.whole, size - piece.reply_size)
        merged = self.merge(self.replies)
        self.replies = None
        return owner.deliver(self.whole, PyBytes_AS_STRING(merged), PyBytes_GET_SIZE(merged), None)

    cdef int expect(self, Request piece, Py_ssize_t size) except -1:
        cdef Owner owner = self.whole.owner
        if self.whole.flags & GHOST or owner is None:
            piece.flags |= GHOST
            return 0
        return owner.expect(self.whole, size)

    cdef int gather(self, Request piece, Py_ssize_t size) except -1:
        cdef Owner owner = self.whole.owner
        piece.reply_size += size
        return 0 if owner is None else owner.gather(self.whole, size)

    cdef bint take_apart(self, Request piece) except -1:
        return self.table is not None and launch_apart(piece, self.table)


def spread(Request whole not None, pools, merge):
    """Send the request, which has its place already, to each of the nodes.

    `pools` are the nodes' Pools; `merge(replies)` makes the client's reply of the nodes' replies, in the order of `pools`.
    """
    cdef Fanout fanout = Fanout.__new__(Fanout)
    cdef bytes frame = whole.frame_bytes
    cdef Request piece
    fanout.whole, fanout.merge = whole, merge
    fanout.missing = len(pools)
    fanout.replies = [None] * fanout.missing
    for index, pool in enumerate(pools):
        piece = Request(frame)
        piece.index, piece.slot, piece.target = index, NO_KEYS, pool
        piece.owner, piece.spec = fanout, whole.spec
        piece.deadline = whole.deadline
        pool.sink.take(piece)


cdef int launch(Request whole, LinkTable table, const Span *spans, Py_ssize_t argc) except -1:
    """Cut `whole` by slot and send the pieces."""
    cdef Plan plan
    try:
        plan = cut(<CommandSpec>whole.spec, whole.frame, spans, argc, False)
    except OverflowError:
        return refuse(whole, TAIL_TOO_LONG)
    return _send(whole, table, plan)


cdef bint launch_apart(Request whole, LinkTable table) except -1:
    """Cut `whole` into one-key pieces and send them; False where it has but one key, or cannot be cut so small."""
    cdef FrameReader reader = FrameReader(NO_SCRATCH)
    cdef Plan plan
    reader.data, reader.end = whole.frame, whole.size
    reader.next_request()
    reader.data = NULL
    try:
        plan = cut(<CommandSpec>whole.spec, whole.frame, reader.spans, reader.argc, True)
    except OverflowError:
        return False
    if len(plan.frames) < 2:
        return False
    _send(whole, table, plan)
    return True


cdef int _send(Request whole, LinkTable table, Plan plan) except -1:
    cdef Fanout fanout = Fanout.__new__(Fanout)
    cdef Request piece
    cdef Py_ssize_t index
    fanout.whole, fanout.table, fanout.merge = whole, table, (<object>plan).merge
    fanout.missing = len(plan.frames)
    fanout.replies = [None] * fanout.missing
    for index in range(fanout.missing):
        piece = Request(<bytes>plan.frames[index])
        piece.index = index
        piece.slot = plan.slots[index]
        piece.owner, piece.spec = fanout, whole.spec
        piece.flags = whole.flags & (READONLY_REQUEST | APART)
        piece.deadline, piece.hold_until = whole.deadline, whole.hold_until
        if whole.gate is None:
            table.send(piece)
        else:
            whole.gate.take_back(piece)    # before what has come to the gate since
    return 0
