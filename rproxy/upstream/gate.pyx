# cython: language_level=3, boundscheck=False, wraparound=False
"""A Gate stands in the LinkTable for slots that are not ready, and keeps the order of what it holds.

Strategy. Two queues. `returned` holds requests that a node sent back unexecuted (MOVED, TRYAGAIN, LOADING ...) or that a
lost link never wrote; `held` holds requests that arrived since. A gate for one slot is shut while requests of that slot are
still `outstanding`, under way on the link they were sent on: each of them comes home, answered or sent back, before the gate
opens. So what leaves it is, in order: everything that came back, then everything that arrived since. After a back-off what came
back is tried alone, and the gate stays shut until that is home: it may come back again. One client's commands for one key
are never reordered, however often the slot moves.

Rules. Bytes and time are bounded: a request that does not fit, or waits longer than `hold_time`, is answered with the last
error that a server gave it, or with one of our own that says that it was not executed. A gate with `refusing` set is an
open circuit breaker: it answers at once.
"""
cimport cython

from rproxy.upstream.sink cimport Sink, refuse
from rproxy.wire.frames cimport GATED, GHOST, Fifo, Request, fifo_free, fifo_peek, fifo_pop, fifo_push


@cython.final
cdef class Gate(Sink):

    def __cinit__(self, lane, str reason, object pool=None, int slot=-1, int outstanding=0,
                  Py_ssize_t max_size=64 << 20, double hold_time=5.0):
        self.lane, self.reason, self.pool, self.slot = lane, reason, pool, slot
        self.outstanding, self.max_size, self.hold_time = outstanding, max_size, hold_time

    def __dealloc__(self):
        fifo_free(&self.returned)
        fifo_free(&self.held)

    cdef int send(self, Request request) except -1:
        """Hold the request or answer it; either way it is a reason to open."""
        if self._admit(request):
            fifo_push(&self.held, request)
        self.lane.knock(self)
        return 0

    cdef int bring_back(self, Request request) except -1:
        """Hold a request that was sent already: it goes before those that were not."""
        cdef bint counted = (request.flags & GATED) != 0
        request.flags &= ~GATED
        request.gate = None
        if self._admit(request):
            fifo_push(&self.returned, request)
        if counted:
            self.home(request)
        return 0

    cdef int home(self, Request request) except -1:
        """One of the outstanding requests needs waiting for no longer."""
        self.outstanding -= 1
        if self.outstanding == 0:
            self.lane.knock(self)
        return 0

    cdef int _admit(self, Request request) except -1:
        if request.flags & GHOST:
            return 0
        if request.hold_until == 0:
            request.hold_until = self.lane.now() + self.hold_time
        if self.refusing is not None:
            refuse(request, self.refusing)
            return 0
        if self.size and self.size + request.size > self.max_size:  # a single one may be larger
            refuse(request, self.lane.refusal(self, request.last_error, True))
            return 0
        self.size += request.size
        return 1

    def came_home(self, Request request not None):
        """An outstanding request was answered, or nobody waits for it."""
        if request.flags & GATED:
            request.flags &= ~GATED
            request.gate = None
            self.home(request)

    def take_back(self, Request request not None):
        """Python's way to `bring_back`."""
        self.bring_back(request)

    def first_to_try(self):
        """What came back, to be tried again ahead of the rest; each is counted until it is home."""
        cdef list everything = []
        cdef Request request
        while self.returned.count:
            request = <Request>fifo_pop(&self.returned)
            self.size -= request.size
            if request.flags & GHOST:
                refuse(request, None)
                continue
            request.flags |= GATED
            request.gate = self
            self.outstanding += 1
            everything.append(request)
        return everything

    def empty(self):
        """All that the gate holds, in the order in which it is to be sent; it holds nothing afterwards."""
        cdef list everything = []
        cdef Request request
        cdef Fifo *queue
        while self.returned.count or self.held.count:
            queue = &self.returned if self.returned.count else &self.held
            request = <Request>fifo_pop(queue)
            if request.flags & GHOST:
                refuse(request, None)
            else:
                everything.append(request)
        self.size = 0
        return everything

    def expire(self, double now):
        """Answer the requests that have waited too long; how many they were. The rest does not sit out a back-off of theirs."""
        cdef int count = self._expire(&self.returned, now)
        if count and not self.returned.count and self.opens_at:
            self.opens_at = 0
            self.lane.knock(self)
        return count + self._expire(&self.held, now)

    cdef int _expire(self, Fifo *queue, double now) except -1:
        cdef Request request
        cdef int count = 0
        while queue.count:
            request = <Request>fifo_peek(queue, 0)
            if not request.flags & GHOST and request.hold_until > now:
                return count
            fifo_pop(queue)
            self.size -= request.size
            count += 1
            refuse(request, self.lane.refusal(self, request.last_error))
        return count

    def __len__(self):
        return self.returned.count + self.held.count

    def __repr__(self):
        where = f"slot {self.slot}" if self.slot >= 0 else str(self.pool)
        return f"<Gate {where}: {self.reason}, {len(self)} held, {self.outstanding} outstanding>"
