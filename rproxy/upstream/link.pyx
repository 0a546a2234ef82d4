# cython: language_level=3, boundscheck=False, wraparound=False
"""One connection to a node: requests out, replies back, matched by their order alone.

Strategy. `send` appends the frame's bytes and puts the request into the FIFO; each reply frame belongs to the oldest entry.
A reply that is no error goes straight to the request's owner. Errors whose first word may call for action are judged by the
Lane, in Python: they are rare.

Rules. A reply without a request, a push that nobody hears or a broken frame ends the link: a link that is out of step
gives one client another's reply, the worst of all errors. An entry whose owner has gone stays as a ghost: its reply is
measured and dropped. When the link is lost, each request under way is either handed back to be sent again, because not a
byte of it was written or because it changes nothing, or is answered that it may have been executed.

A node that was stopped for a while runs, when it goes on, what was parked on its links, and acknowledges it; but another node
may have taken over meanwhile, and then all of it is thrown away. So what a link says after a long silence is put off until its
Pool knows that the node is still in charge.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from rproxy.errors import MAY_HAVE_RUN, late_reply
from rproxy.transport.stream cimport Stream, Tick
from rproxy.upstream.gate cimport Gate
from rproxy.upstream.sink cimport Sink, refuse
from rproxy.wire.frames cimport (
    APART, ASKED, BROKEN, FRAME, GATED, GHOST, MORE, READONLY_REQUEST, SETUP, SEVERAL, Blob, Fifo,
    FrameReader, Owner, Request, fifo_free, fifo_peek, fifo_pop, fifo_push, fifo_put_back,
)

cdef enum:
    SHARE_LEAST = 32768        # bytes from which a reply is shared instead of copied
    EXPECT_LEAST = 1 << 20     # bytes from which the owner is told of a reply under way
    TAIL_KEPT = 1 << 17        # links are few and busy: they keep the memory of their writes
    SPECIAL = GHOST | GATED | SETUP | SEVERAL

cdef bytes PING = b"*1\r\n$4\r\nPING\r\n"
cdef bytes ASKING = b"*1\r\n$6\r\nASKING\r\n"

# First letters of the errors that recovery acts on: ASK, CLUSTERDOWN, LOADING, MOVED, MASTERDOWN, NOAUTH, READONLY,
# TRYAGAIN.
cdef bytes JUDGED = b"ACLMNRT"
cdef bint[256] judged
for _letter in JUDGED:
    judged[_letter] = True


@cython.final
cdef class LinkStream(Stream):

    def __init__(self, Tick tick, Link link not None, max_reply=1 << 40):
        self.link = link
        self.tail_kept = TAIL_KEPT
        self.reader = FrameReader(tick.scratch, max_frame=max_reply)

    cdef int received(self) except -1:
        return self.link.take_replies()

    cdef int lost(self, str reason) except -1:
        return self.link._fail(reason)


@cython.final
cdef class Link(Sink):

    def __init__(self, Tick tick not None, lane=None, pool=None):
        self.tick, self.lane, self.pool = tick, lane, pool
        self.stream = LinkStream(tick, self)
        self.heard_at = tick.clock()

    def __dealloc__(self):
        fifo_free(&self.fifo)

    cdef int send(self, Request request) except -1:
        """Write the request at the end of this turn; its owner gets the reply."""
        if self.fifo.count == 0:
            self.heard_at = self.tick.now
        request.start = self.stream.appended
        self.stream.write_shared(request.blob, request.frame, request.size)
        fifo_push(&self.fifo, request)
        self.tick.in_flight += 1
        return 0

    def send_asking(self, Request request not None):
        """Write ASKING and the request, with nothing between them."""
        cdef Request asking = Request(ASKING)
        asking.flags = SETUP
        request.flags |= ASKED
        self.send(asking)
        self.send(request)

    def send_setup(self, Request request not None):
        """Write a request of the link's own."""
        request.flags |= SETUP
        self.send(request)

    def ping(self):
        """Ask for a sign of life; the answer is only waited for."""
        cdef Request request = Request(PING)
        request.flags = SETUP
        self.send(request)

    def open(self):
        """The handshake is done."""
        self.ready = not self.stream.closed

    cdef int take_replies(self) except -1:
        """Hand every whole reply that the stream has to its request's owner."""
        cdef FrameReader reader = self.stream.reader
        cdef Request request
        cdef Owner owner           # kept while it is called: it may let go of the request meanwhile
        cdef Blob blob
        cdef int outcome
        if self.stalled:
            return self._put_off()
        self.heard_at = self.tick.now
        while True:
            outcome = reader.next_reply()
            if outcome != FRAME:
                break
            # Of a reply that was dropped in part, `frame` is what is left: no type byte.
            if self.fifo.count == 0 or (reader.frame[0] == c'>' and not reader.discarded):
                if reader.frame[0] != c'>' or self.on_push is None:
                    return self._out_of_step(reader.frame[0])
                self.on_push(PyBytes_FromStringAndSize(reader.frame, reader.size))
                if self.stream.closed:
                    return 0
                continue
            request = <Request>fifo_pop(&self.fifo)
            self.tick.in_flight -= 1
            self.replies += 1
            blob = reader.share() if reader.size >= SHARE_LEAST else None
            if request.flags & SPECIAL or reader.frame[0] == c'-':
                self._off_path(request, reader.frame, reader.size, blob)
            else:
                owner = request.owner
                owner.deliver(request, reader.frame, reader.size, blob)
            if self.stream.closed:
                return 0
        if outcome == BROKEN:
            return self.stream._fail(f"protocol error: {reader.trouble}")
        if reader.pending():
            self._under_way(reader)
        if self.tick.in_flight == 0:
            self.tick.flush_all()
        return 0

    cdef int _put_off(self) except -1:
        """Read on when it is known what the node's word counts."""
        self.stream.pause()
        if not self.spoke:
            self.spoke = True
            self.pool.spoke(self)
        return 0

    def heed(self):
        """The node is in charge still: take what it has said after its silence."""
        self.stalled = self.spoke = False
        if not self.stream.closed:
            self.stream.resume()
            self.stream._work()

    cdef int _under_way(self, FrameReader reader) except -1:
        """A reply has begun: forget a ghost's bytes, warn the owner of a large one."""
        cdef Request request
        cdef Owner owner
        cdef Py_ssize_t size
        if self.fifo.count == 0:
            return 0
        size = max(reader.need, reader.pending())
        request = <Request>fifo_peek(&self.fifo, 0)
        owner = request.owner
        if not request.flags & GHOST and owner is not None and size >= EXPECT_LEAST:
            owner.expect(request, size)
        reader.discard = (request.flags & GHOST) != 0 or reader.discarded
        return 0

    cdef int _out_of_step(self, char kind) except -1:
        return self.stream._fail("an unexpected push" if kind == c'>' else "a reply without a request")

    cdef int _off_path(self, Request request, const char *reply, Py_ssize_t size, Blob blob) except -1:
        """A reply that is an error, or whose request is special."""
        cdef int flags = request.flags
        cdef Owner owner = request.owner
        if flags & SETUP:
            if owner is not None:
                owner.deliver(request, reply, size, blob)
            return 0
        if flags & SEVERAL and self._more_to_come(request, reply, size):
            return 0
        if reply[0] == c'-' and not flags & GHOST and self.lane is not None \
                and self._is_for_the_lane(request, reply, size) \
                and self.lane.judge(self, request, request.last_error):
            return 0
        if not request.flags & GHOST:
            owner.deliver(request, reply, size, blob)
        if request.flags & GATED:
            request.gate.came_home(request)
        return 0

    cdef bint _is_for_the_lane(self, Request request, const char *reply, Py_ssize_t size) except -1:
        """Whether the last error may call for action. EXEC refused because of an earlier error: that one counts."""
        if size > 1 and judged[<unsigned char>reply[1]]:
            request.last_error = PyBytes_FromStringAndSize(reply, size)
            return True
        return request.flags & SEVERAL and request.last_error is not None

    cdef bint _more_to_come(self, Request request, const char *reply, Py_ssize_t size) except -1:
        """Whether this is one of several replies and not the last; then the request is the oldest again."""
        cdef Owner owner = request.owner
        request.came += 1
        if request.came == request.parts:
            request.came = 0
            return False
        if request.came == 1:
            request.last_error = None
        if reply[0] == c'-' and size > 1 and judged[<unsigned char>reply[1]]:
            request.last_error = PyBytes_FromStringAndSize(reply, size)
        if not request.flags & GHOST and owner is not None:
            owner.part(request, reply, size)
        fifo_put_back(&self.fifo, request)
        self.tick.in_flight += 1
        return True

    cdef int _fail(self, str reason) except -1:
        """The connection is gone: hand back what may be sent again, answer the rest."""
        cdef list again = []
        cdef Request request
        cdef long long written = self.stream.appended
        cdef bint was_ready = self.ready
        self.ready = False
        self.tick.in_flight -= self.fifo.count
        while self.fifo.count:
            request = <Request>fifo_pop(&self.fifo)
            if request.flags & SETUP:
                continue
            if self.lane is not None and not request.flags & GHOST \
                    and (request.start >= written or request.flags & READONLY_REQUEST):
                again.append(request)
            else:
                refuse(request, MAY_HAVE_RUN)
        if self.pool is not None:
            self.pool.lost(self, reason, again, was_ready)
        return 0

    def close(self, str reason):
        """End the link for a reason of ours."""
        self.stream._fail(reason)

    def expire(self, double now):
        """Answer requests past their deadline; their entries stay as ghosts. How many they were."""
        cdef Py_ssize_t i
        cdef int count = 0
        cdef Request request
        cdef Owner owner
        cdef bytes error
        for i in range(self.fifo.count):
            request = <Request>fifo_peek(&self.fifo, i)
            if request.flags & (GHOST | SETUP):
                continue
            if request.deadline == 0 or request.deadline > now:
                break
            error = late_reply(request.start < self.stream.appended - self.stream.unwritten)
            owner = request.owner
            owner.deliver(request, PyBytes_AS_STRING(error), PyBytes_GET_SIZE(error), None)
            request.flags |= GHOST
            request.owner = None
            count += 1
        return count

    def guard(self, Gate gate not None, int slot):
        """Have `gate` count home the requests for `slot` that are under way here; how many they are."""
        cdef Py_ssize_t i
        cdef Request request
        cdef int count = 0
        for i in range(self.fifo.count):
            request = <Request>fifo_peek(&self.fifo, i)
            if request.slot == slot and not request.flags & (SETUP | GATED | ASKED):
                request.flags |= GATED
                request.gate = gate
                gate.outstanding += 1
                count += 1
        return count

    def slots_under_way(self):
        """The slots of all requests under way here, but of those that were sent here for a slot of another node."""
        cdef Py_ssize_t i
        cdef Request request
        cdef set slots = set()
        for i in range(self.fifo.count):
            request = <Request>fifo_peek(&self.fifo, i)
            if not request.flags & (SETUP | ASKED):
                slots.add(request.slot)
        return slots

    def __len__(self):
        return self.fifo.count

    def __repr__(self):
        state = "ready" if self.ready else "closed" if self.stream.closed else "opening"
        return f"<Link {self.pool} {state}, {self.fifo.count} under way>"
