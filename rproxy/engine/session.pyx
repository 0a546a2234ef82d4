# cython: language_level=3, boundscheck=False, wraparound=False
"""One client's conversation: requests in, replies out in the same order.

Strategy. Each request is read where it lies. If its command has keys in one slot and the conversation is in no special
state, it takes the straight path: a Request joins the session's FIFO and goes to its slot's Sink. Anything else goes to
`dispatch`, in Python. Replies may come in any order; the finished prefix of the FIFO leaves, the rest waits in the requests.

Rules. What a client can make big is bounded: requests under way (then its socket is not read), unsent replies (likewise,
and at the limit that client is dropped). A session that ends turns what it has under way into ghosts. `deliver` may be
called from anywhere, also from within `send`; the reading loop never runs inside it.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy

from rproxy.engine.fanout cimport launch, launch_apart
from rproxy.routing.slots cimport CROSS_SLOT, assign_slot
from rproxy.routing.specs cimport (
    MULTI_SHARD, READONLY, STRAIGHT, CommandSpec, CommandTable, arity_ok,
)
from rproxy.routing.split cimport Plan
from rproxy.transport.stream cimport Stream, Tick
from rproxy.upstream.sink cimport LinkTable, refuse
from rproxy.wire.frames cimport (
    APART, BROKEN, FRAME, GHOST, MORE, MUTED, READONLY_REQUEST, Blob, FrameReader, Owner, Request,
    fifo_free, fifo_peek, fifo_pop, fifo_push,
)

cdef inline void _note_kind(Request request, CommandSpec spec) noexcept:
    """What the command's kind allows when its request meets trouble."""
    if spec.flags & READONLY:
        request.flags |= READONLY_REQUEST
    if spec.flags & MULTI_SHARD:
        request.flags |= APART


cdef enum:
    SHARE_LEAST = 32768        # bytes from which a request's memory is shared instead of copied
    STORE_SHARED = 16384       # bytes from which an early reply's memory is shared


@cython.final
cdef class Shared:

    def __init__(self, Tick tick not None, CommandTable commands not None, dispatch,
                 LinkTable table2 not None, LinkTable table3 not None):
        self.tick, self.commands, self.dispatch = tick, commands, dispatch
        self.table2, self.table3 = table2, table3
        self.command_timeout, self.max_in_flight = 30.0, 1024
        self.pause_output, self.output_limit = 1 << 20, 256 << 20
        self.max_args, self.max_bulk, self.max_request = 1 << 20, 512 << 20, 1 << 30


@cython.final
cdef class Session(Owner):

    def __init__(self, Shared shared not None, Stream stream not None, client=None, bint locked=False):
        self.shared, self.stream, self.client = shared, stream, client
        self.reader = FrameReader(shared.tick.scratch, shared.max_args, shared.max_bulk, shared.max_request)
        self.reader.locked = locked
        stream.reader = self.reader
        self.table, self.protocol = shared.table2, 2
        self.straight = not locked
        self.active_at = shared.tick.now

    def __dealloc__(self):
        fifo_free(&self.fifo)

    # -- requests in --

    cdef int received(self) except -1:
        """Work through what the reader has; write at once where nothing else was under way."""
        cdef Tick tick = self.shared.tick
        cdef bint lonely = tick.in_flight == 0
        self._read_on()
        if lonely:
            tick.flush_all()
        return 0

    cdef int _read_on(self) except -1:
        cdef int outcome
        if self.running:
            return 0
        self.running = True
        try:
            while not (self.held or self.ending or self.stream.closed):
                if self._is_full():
                    self.choked = True
                    break
                outcome = self.reader.next_request()
                if outcome == MORE:
                    break
                if outcome == BROKEN:
                    self._broken()
                    break
                self._one()
        finally:
            self.running = False
        if self.held or self.choked:
            self.stream.pause()
        elif self.stream.at_end and not self.ending:
            self.end()
        return 0

    cdef bint _is_full(self) noexcept:
        return self.fifo.count >= self.shared.max_in_flight \
            or self.stream.unwritten + self.stored > self.shared.pause_output

    cdef int _one(self) except -1:
        """One request, as the reader shows it."""
        cdef FrameReader reader = self.reader
        cdef CommandSpec spec = self.shared.commands.find_frame(reader.frame, reader.spans, reader.argc)
        cdef Request request
        cdef int slot
        self.active_at = self.shared.tick.now
        self.commands_seen += 1
        self.last_spec = spec
        if self.straight and spec is not None and spec.flags & STRAIGHT \
                and arity_ok(spec, reader.argc):
            slot = assign_slot(spec, reader.frame, reader.spans, reader.argc)
            if slot >= 0:
                request = self._request(spec, slot)
                fifo_push(&self.fifo, request)
                return self.table.send(request)
            if slot == CROSS_SLOT and spec.flags & MULTI_SHARD:
                request = self._request(spec, slot)
                fifo_push(&self.fifo, request)
                return launch(request, self.table, reader.spans, reader.argc)
        else:
            slot = -1
        self.shared.dispatch(self, self._request(spec, slot))
        return 0

    cdef Request _request(self, CommandSpec spec, int slot):
        cdef FrameReader reader = self.reader
        cdef Request request = Request.__new__(Request)
        request.keep(reader.frame, reader.size, reader.share() if reader.size >= SHARE_LEAST else None)
        request.owner, request.spec, request.slot = self, spec, slot
        if spec is not None:
            _note_kind(request, spec)
        if self.shared.command_timeout:
            request.deadline = self.shared.tick.now + self.shared.command_timeout
        if self.muted or self.mute_next:
            request.flags |= MUTED
            if self.mute_next:
                self.mute_next -= 1
        return request

    def rewrite(self, Request request not None, bytes frame not None, CommandSpec spec):
        """Have the request, which nobody has taken yet, say something else."""
        request.keep(PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame), None)
        request.spec = spec
        if spec is not None:
            _note_kind(request, spec)

    cdef int _broken(self) except -1:
        """The client breaks the protocol: say so as Redis does, after all earlier replies, and close."""
        if self.client is not None:
            self.client.broke_protocol(self.reader.trouble)
        self.answer(b"-ERR Protocol error: %b\r\n" % self.reader.trouble.encode())
        self.end()
        return 0

    # -- replies out --

    cdef int deliver(self, Request request, const char *reply, Py_ssize_t size, Blob blob) except -1:
        """A request's reply: write it if it is its turn, else store it in the request."""
        if request.reply_size:     # gathered piece by piece: here is the whole
            self.stored -= request.reply_size
            request.reply_size = 0
        if self.fifo.count and fifo_peek(&self.fifo, 0) is request:
            fifo_pop(&self.fifo)
            self._put(request, reply, size, blob)
            self._advance()
        elif not request.flags & MUTED:
            if blob is None or size < STORE_SHARED:
                blob = Blob.__new__(Blob, size)
                memcpy(blob.data, reply, size)
                reply = blob.data
            request.reply, request.reply_start, request.reply_size = blob, reply, size
            request.done = True
            self.stored += size
        else:
            request.done = True
        if self.stream.unwritten + self.stored > self.shared.output_limit:
            self._too_slow()
            return 0
        return self._ease()

    cdef int expect(self, Request request, Py_ssize_t size) except -1:
        """A large reply has begun: drop the client now if it can never take it."""
        if not request.flags & MUTED and self.stream.unwritten + self.stored + size > self.shared.output_limit:
            self._too_slow()
        return 0

    cdef int gather(self, Request request, Py_ssize_t size) except -1:
        """Pieces of a reply are stored elsewhere: they count all the same."""
        request.reply_size += size
        self.stored += size
        return self.expect(request, 0)

    cdef int _too_slow(self) except -1:
        """The client does not read its replies, or asks for more than it may hold."""
        return self.stream._fail("output limit")

    cdef int _put(self, Request request, const char *reply, Py_ssize_t size, Blob blob) except -1:
        if not request.flags & MUTED:
            self.stream.write_shared(blob, reply, size)
        return 0

    cdef int _advance(self) except -1:
        """Write the finished prefix."""
        cdef Request request
        while self.fifo.count:
            request = <Request>fifo_peek(&self.fifo, 0)
            if not request.done:
                return 0
            fifo_pop(&self.fifo)
            if request.reply is not None:
                self.stored -= request.reply_size
                self._put(request, request.reply_start, request.reply_size, request.reply)
        return 0

    cdef int _ease(self) except -1:
        """After progress: read on, call who waits for idleness, or end."""
        if self.fifo.count == 0 and (self.ending or self.on_idle is not None):
            self._rest()
        elif self.choked and self.fifo.count <= self.shared.max_in_flight // 2 \
                and self.stream.unwritten + self.stored <= self.shared.pause_output // 2:
            self._wake_soon()
        return 0

    def _rest(self):
        """Nothing is under way."""
        if self.on_idle is not None:
            self._wake_soon()
        elif not self.held:
            self.stream.finish()

    def _wake_soon(self):
        if not self.waking:
            self.waking = True
            self.shared.tick.call_soon(self._wake)

    def _wake(self):
        """Go on after a pause, outside of any delivery."""
        self.waking = False
        if self.stream.closed:
            return
        if self.on_idle is not None and self.fifo.count == 0:
            callback, self.on_idle = self.on_idle, None
            callback(self)
        if self.held:
            return
        if self.ending:
            self.end()
            return
        self.choked = False
        self.stream.resume()
        self.stream._work()

    cdef int drained(self) except -1:
        return self._ease()

    def take_apart_request(self, Request request not None):
        """Python's way to `take_apart`."""
        return self.take_apart(request)

    cdef bint take_apart(self, Request request) except -1:
        """Send the request again in one-key pieces; its place in the FIFO stays."""
        if not request.flags & APART or request.flags & GHOST:
            return False
        return launch_apart(request, self.table)

    # -- the end --

    cdef int ended(self) except -1:
        """The client has sent all: answer what is under way, then close."""
        if not (self.held or self.choked):
            self.end()
        return 0

    cdef int lost(self, str reason) except -1:
        """The client is gone: what it has under way becomes ghosts."""
        cdef Request request
        while self.fifo.count:
            request = <Request>fifo_pop(&self.fifo)
            request.flags |= GHOST
            request.owner = None
        self.stored = 0
        self.on_idle = None
        if self.on_lost is not None:
            callback, self.on_lost = self.on_lost, None
            callback(self, reason)
        return 0

    def end(self):
        """Read nothing more; close once all replies are written, also that of the request that holds the rest."""
        self.ending = True
        self.stream.pause()
        if self.fifo.count == 0 and not self.held:
            self.stream.finish()

    def close(self, str reason):
        """Close now."""
        self.stream._fail(reason)

    # -- for dispatch --

    def answer(self, bytes reply not None, Request request=None):
        """Answer a request here; the reply keeps its place among those under way."""
        cdef Request place = request
        if self.muted and request is None:
            return
        if self.fifo.count == 0:
            if place is None or not place.flags & MUTED:
                self.stream.write(PyBytes_AS_STRING(reply), PyBytes_GET_SIZE(reply))
            self._ease()
            return
        if place is None:
            place = Request.__new__(Request)
        place.owner = self
        fifo_push(&self.fifo, place)
        self.deliver(place, PyBytes_AS_STRING(reply), PyBytes_GET_SIZE(reply), None)

    def forward(self, Request request not None):
        """Send the request to its slot's Sink."""
        fifo_push(&self.fifo, request)
        self.table.send(request)

    def enter(self, Request request not None):
        """Give the request its place; someone else sends it."""
        fifo_push(&self.fifo, request)

    def split(self, Request request not None):
        """Send the request in one-slot pieces, and deliver their merged replies."""
        cdef FrameReader reader = self._reread(request)
        fifo_push(&self.fifo, request)
        launch(request, self.table, reader.spans, reader.argc)

    def assign(self, Request request not None):
        """Find the request's slot (0..16383 or a negative NoSlot) by its key rule."""
        cdef FrameReader reader
        if request.spec is not None:
            reader = self._reread(request)
            request.slot = assign_slot(<CommandSpec>request.spec, request.frame, reader.spans, reader.argc)
        return request.slot

    cdef FrameReader _reread(self, Request request):
        """A reader that shows the request's arguments once more."""
        cdef FrameReader reader = FrameReader(self.shared.tick.scratch)
        reader.data, reader.end = request.frame, request.size
        reader.next_request()
        reader.data = NULL
        return reader

    def hold(self, callback=None):
        """Read no request until `release`; `callback(session)` is called once nothing is under way."""
        self.held = True
        self.on_idle = callback
        if callback is not None and self.fifo.count == 0:
            self._wake_soon()

    def release(self):
        """Read on."""
        self.held = False
        self._wake_soon()

    def unlock(self):
        """The client is authenticated."""
        self.reader.locked = False
        self.straight = True

    def lock(self):
        """The client has to authenticate (again)."""
        self.reader.locked = True
        self.straight = False

    def speak(self, int protocol):
        """From the next reply on, speak RESP2 or RESP3."""
        self.protocol = protocol
        self.table = self.shared.table3 if protocol == 3 else self.shared.table2

    def mute(self, bint off, int skip=0):
        """CLIENT REPLY: no replies from now on, or for the next `skip` commands."""
        self.muted, self.mute_next = off, skip

    @property
    def under_way(self):
        """Requests that are not answered yet."""
        return self.fifo.count

    @property
    def is_muted(self):
        """Whether CLIENT REPLY OFF is in force."""
        return self.muted

    @property
    def is_held(self):
        """Whether reading waits for `release`."""
        return self.held

    @property
    def is_ending(self):
        """Whether the session closes once its replies are written."""
        return self.ending

    @property
    def last_command(self):
        """Name of the last request's command, or "NULL" where it is unknown."""
        return "NULL" if self.last_spec is None else self.last_spec.name

    def __repr__(self):
        return (f"<Session RESP{self.protocol}, {self.fifo.count} under way, {self.stored} bytes stored, "
                f"{self.stream.unwritten} unsent>")
