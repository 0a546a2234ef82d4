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

from rproxy.engine.bundle cimport Bundle
from rproxy.engine.fanout cimport launch, launch_apart
from rproxy.routing.pins cimport Pins
from rproxy.routing.slots cimport CROSS_SLOT, assign_slot
from rproxy.routing.specs cimport (
    EXEC, MULTI, MULTI_SHARD, READONLY, STRAIGHT, CommandSpec, CommandTable, arity_ok,
)
from rproxy.routing.split cimport Plan
from rproxy.transport.stream cimport Stream, Tick
from rproxy.upstream.sink cimport LinkTable, refuse
from rproxy.wire.frames cimport (
    APART, BROKEN, FRAME, GHOST, MARK, MORE, MUTED, PINNED, READONLY_REQUEST, SEVERAL, Blob, FrameReader, Owner,
    Request, fifo_free, fifo_peek, fifo_pop, fifo_push,
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
        self.subscriber_limit, self.subscriber_soft_limit, self.subscriber_soft_time = 32 << 20, 8 << 20, 60.0
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
            self._unbundle()
        finally:
            self.running = False
        if self.held or self.choked:
            if not self._is_watched():
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
        if self.shared.pins is not None:
            self._pin(spec)
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
            if spec is None:
                self._unbundle()
            elif self._takes(spec):
                return 0
        self.shared.dispatch(self, self._request(spec, slot))
        return 0

    # -- pinned keys --

    cdef int _pin(self, CommandSpec spec) except -1:
        """Show the request under the servers' names, and note whether its reply may hold some."""
        cdef Pins pins = self.shared.pins
        self.flags = 0
        if spec is not None and (pins.inward(self.reader, spec) or pins.touches(spec)):
            self.flags = PINNED
        return 0

    def pin_keys(self, Request request not None):
        """The same for a request whose command was unknown when it was read."""
        cdef Pins pins = self.shared.pins
        cdef FrameReader reader
        if pins is None or request.spec is None:
            return
        reader = self._reread(request)
        if pins.inward(reader, <CommandSpec>request.spec):
            request.keep(reader.frame, reader.size, None)
            request.flags |= PINNED
        elif pins.touches(<CommandSpec>request.spec):
            request.flags |= PINNED

    cdef bytes _outward(self, Request request, const char *reply, Py_ssize_t size):
        """The reply with its keys as clients call them, or None where nothing is to be changed."""
        cdef CommandSpec spec = <CommandSpec>request.spec
        cdef list queued = None
        cdef Pins pins = self.shared.pins
        if pins is None or not pins.may_change(spec, reply, size):
            return None
        if spec is not None and spec.flags & EXEC:
            queued = self._queued(request)
        return pins.outward(spec, reply, size, queued)

    cdef list _queued(self, Request request):
        """The specs of the commands that EXEC runs."""
        cdef Request one
        cdef Bundle whole
        cdef list found
        if request.flags & SEVERAL:
            whole = Bundle.__new__(Bundle, self)
            whole.add(request.frame, request.size, -1)
            found = whole.requests()
            return [self.shared.commands.lookup(*one.argv()[:2]) for one in found[1:len(found) - 1]]
        if self.pin is None:
            return []
        if self.pin.order is not None:
            return self.pin.order
        return [one.spec for one in self.pin.kept if one is not request]

    # -- transactions --

    cdef bint _takes(self, CommandSpec spec) except -1:
        """Whether the request opens a transaction, or is part of one, and needs no further look."""
        cdef FrameReader reader = self.reader
        cdef Request request
        if self.bundle is not None:
            return self._gather(spec)
        if self.pin is None:
            if not spec.flags & MULTI or not self.straight or reader.argc != 1 or self.muted or self.mute_next:
                return False
            self.bundle, self.straight = Bundle.__new__(Bundle, self), False
            self.bundle.add(reader.frame, reader.size, -1)
            return True
        if not self._is_queued(spec, reader):
            return False
        request = self._request(spec, self.pin.slot)
        fifo_push(&self.fifo, request)
        self.pin.queue(request)
        return True

    cdef bint _is_queued(self, CommandSpec spec, FrameReader reader) except -1:
        """Whether the pin's link takes the request as it is: a keyed command of its slot, inside MULTI."""
        return self.pin is not None and self.pin.queueing and spec is not None and spec.flags & STRAIGHT \
            and not self.tracking \
            and arity_ok(spec, reader.argc) and self.pin.size + reader.size <= self.pin.limit \
            and assign_slot(spec, reader.frame, reader.spans, reader.argc) == self.pin.slot

    cdef bint _gather(self, CommandSpec spec) except -1:
        """Whether the request goes into the bundle, or closes it; if not, there is no bundle any more."""
        cdef FrameReader reader = self.reader
        cdef Bundle bundle = self.bundle
        cdef Request whole
        cdef int slot
        if spec.flags & STRAIGHT and arity_ok(spec, reader.argc):
            slot = assign_slot(spec, reader.frame, reader.spans, reader.argc)
            if slot >= 0 and (bundle.slot < 0 or bundle.slot == slot):
                bundle.add(reader.frame, reader.size, slot)
                return True
        elif spec.flags & EXEC and reader.argc == 1 and bundle.slot >= 0:
            self.bundle = None
            self._open_straight()
            whole = bundle.close(reader.frame, reader.size)
            whole.spec = spec
            whole.flags |= self.flags
            if self.shared.command_timeout:
                whole.deadline = self.shared.tick.now + self.shared.command_timeout
            fifo_push(&self.fifo, whole)
            self.table.send(whole)
            return True
        self._unbundle()
        return False

    cdef int _unbundle(self) except -1:
        """The transaction is not whole, or holds more than keyed commands of one slot: one request at a time.
        Nothing happens where none is being gathered."""
        cdef Bundle bundle = self.bundle
        cdef CommandSpec spec
        cdef FrameReader reader
        cdef Request request
        if bundle is None or self.stream.closed:
            return 0
        self.bundle = None
        self._open_straight()
        for request in bundle.requests():
            reader = self._reread(request)
            spec = self.shared.commands.find_frame(reader.frame, reader.spans, reader.argc)
            request.spec = spec
            if self.shared.pins is not None:
                request.flags |= PINNED
            if self._is_queued(spec, reader):
                request.slot = self.pin.slot
                fifo_push(&self.fifo, request)
                self.pin.queue(request)
            else:
                self.shared.dispatch(self, request)
        return 0

    def pin_to(self, Pin pin, bint straight=False):
        """`pin` keeps a link for this session; `straight`: ordinary commands go their usual way all the same."""
        self.pin, self.diverted = pin, pin is not None and not straight
        self._open_straight()

    def watch(self):
        """The client waits for a blocking command: keep reading, to notice at once when it leaves."""
        if self.stream.at_end:
            self.close("the peer closed the connection")
        else:
            self.stream.resume()

    cdef bint _is_watched(self) noexcept:
        return self.pin is not None and self.pin.blocking and self.reader.pending() <= self.shared.pause_output

    cdef Request _request(self, CommandSpec spec, int slot):
        cdef FrameReader reader = self.reader
        cdef Request request = Request.__new__(Request)
        request.keep(reader.frame, reader.size, reader.share() if reader.size >= SHARE_LEAST else None)
        request.owner, request.spec, request.slot = self, spec, slot
        request.flags = self.flags
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
            if self.shared.pins is not None and self.shared.pins.touches(spec):
                request.flags |= PINNED

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
        cdef bytes changed
        if request.flags & PINNED:
            changed = self._outward(request, reply, size)
            if changed is not None:
                reply, size, blob = PyBytes_AS_STRING(changed), PyBytes_GET_SIZE(changed), None
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

    cdef bint push(self, const char *message, Py_ssize_t size, Blob blob) except -1:
        """Write bytes that answer nothing, between two replies; False where the client is too slow for them."""
        cdef Shared shared = self.shared
        self.stream.write_shared(blob, message, size)
        if self.stream.unwritten <= shared.subscriber_soft_limit:
            self.slow_since = 0
            return self.stream.unwritten <= shared.subscriber_limit
        if self.slow_since == 0:
            self.slow_since = shared.tick.now
        return self.stream.unwritten <= shared.subscriber_limit \
            and shared.tick.now - self.slow_since <= shared.subscriber_soft_time

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
            elif request.flags & MARK:
                request.target()
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
        if self.pin is not None and self.pin.blocking:
            self.close("the peer closed the connection")
        elif not (self.held or self.choked):
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
        if self.pin is not None:
            pin, self.pin = self.pin, None
            pin.left()
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
            if place is not None and place.flags & PINNED:
                reply = self._outward(place, PyBytes_AS_STRING(reply), PyBytes_GET_SIZE(reply)) or reply
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
        """Read no request until `release`; `callback(session)` is called once nothing is under way.

        A callback that is waited for is called all the same when somebody else holds the session, too.
        """
        self.held = True
        if callback is None:
            return
        self.on_idle = callback
        if self.fifo.count == 0:
            self._wake_soon()

    def release(self):
        """Read on."""
        self.held = False
        self._wake_soon()

    def unlock(self):
        """The client is authenticated."""
        self.reader.locked = False
        self._open_straight()

    def lock(self):
        """The client has to authenticate (again)."""
        self.reader.locked = True
        self._open_straight()

    cdef int _open_straight(self) except -1:
        """Open the straight path, or close it where some state of the client's limits its commands."""
        self.straight = not (self.reader.locked or self.diverted or self.monitoring or self.tracking
                             or self.is_confined)
        return 0

    def subscribe(self, bint on):
        """The client is subscribed to something, or to nothing any more."""
        self.subscribed = on
        self._open_straight()

    def monitor(self, bint on):
        """The client sees every command from now on, or no more."""
        self.monitoring = on
        self._open_straight()

    def track(self, bint on):
        """The client is told of changes to what it reads from now on, or no more: every command is looked at."""
        self.tracking = on
        self._open_straight()

    def mark(self, callback):
        """Call back when all that is under way is answered: at once (then None), or later (then the mark)."""
        cdef Request mark
        if self.fifo.count == 0:
            callback()
            return None
        mark = Request.__new__(Request)
        mark.owner, mark.target, mark.done = self, callback, True
        mark.flags = MARK
        fifo_push(&self.fifo, mark)
        return mark

    def is_last(self, Request request not None):
        """Whether the request, or mark, is the newest of all that is under way."""
        return self.fifo.count > 0 and fifo_peek(&self.fifo, self.fifo.count - 1) is request

    def interject(self, bytes message not None):
        """Write bytes that answer nothing, also to a muted client; False where it is too slow for them."""
        return self.push(PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message), None)

    def voice(self, Request request not None):
        """The request's reply is a message: CLIENT REPLY does not silence it."""
        request.flags &= ~MUTED

    def speak(self, int protocol):
        """From the next reply on, speak RESP2 or RESP3."""
        self.protocol = protocol
        self.table = self.shared.table3 if protocol == 3 else self.shared.table2
        self._open_straight()

    def mute(self, bint off, int skip=0):
        """CLIENT REPLY: no replies from now on, or for the next `skip` commands."""
        self.muted, self.mute_next = off, skip

    @property
    def under_way(self):
        """Requests that are not answered yet."""
        return self.fifo.count

    @property
    def unread(self):
        """Bytes of the request that is looked at just now, and of what follows it."""
        return self.reader.pending() + (self.reader.size if self.running else 0)

    @property
    def is_muted(self):
        """Whether CLIENT REPLY OFF is in force."""
        return self.muted

    @property
    def is_confined(self):
        """Whether the client may send but the few commands that RESP2 allows to subscribers."""
        return self.subscribed and self.protocol == 2

    @property
    def is_subscribed(self):
        """Whether the client is subscribed to something."""
        return self.subscribed

    @property
    def is_monitor(self):
        """Whether the client sees every command."""
        return self.monitoring

    @property
    def is_tracking(self):
        """Whether the client is told of changes to what it reads."""
        return self.tracking

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
