"""Session: one client's conversation. See session.pyx."""
from rproxy.engine.bundle cimport Bundle
from rproxy.engine.pinned cimport Pin
from rproxy.routing.pins cimport Pins
from rproxy.routing.specs cimport CommandSpec, CommandTable
from rproxy.transport.stream cimport Stream, Tick
from rproxy.upstream.sink cimport LinkTable
from rproxy.wire.frames cimport Blob, Fifo, FrameReader, Owner, Request


cdef class Shared:
    """What all sessions of one worker share."""
    cdef readonly Tick tick
    cdef public CommandTable commands      # replaced whole when the cluster's own table is merged
    cdef public Pins pins                  # the prefixes of keys that are pinned, or None
    cdef readonly object dispatch          # callable(session, request): everything off the straight path
    cdef readonly LinkTable table2         # slot -> Sink for RESP2 clients
    cdef readonly LinkTable table3         # slot -> Sink for RESP3 clients
    cdef public double command_timeout     # seconds until a command is answered with an error; 0 for never
    cdef public Py_ssize_t max_in_flight   # requests of one client under way
    cdef public Py_ssize_t pause_output    # unsent bytes from which a client is not read
    cdef public Py_ssize_t output_limit    # unsent and stored bytes at which a client is dropped
    cdef public Py_ssize_t subscriber_limit  # unsent bytes at which a subscriber is dropped
    cdef public Py_ssize_t subscriber_soft_limit  # unsent bytes at which it is dropped after a while
    cdef public double subscriber_soft_time  # seconds of that while
    cdef public long long max_args         # elements of one request
    cdef public long long max_bulk         # bytes of one element
    cdef public long long max_request      # bytes of one request


cdef class Session(Owner):
    cdef readonly Shared shared
    cdef readonly Stream stream
    cdef FrameReader reader
    cdef LinkTable table           # of the client's protocol version
    cdef Fifo fifo                 # requests under way, in the client's order
    cdef Py_ssize_t stored         # bytes of replies that wait for their turn, or for their other pieces
    cdef bint straight             # the straight path is open
    cdef Bundle bundle             # the transaction that is being gathered from what was read, or None
    cdef readonly Pin pin          # what keeps a link of its own for this session, or None
    cdef bint diverted             # every command goes by the pin
    cdef bint subscribed           # to channels or patterns: RESP2 allows few commands then
    cdef bint monitoring           # sees every command: must not touch keys
    cdef bint tracking             # is told of changes to what it has read
    cdef double slow_since         # monotonic seconds since when it is above the soft limit; 0 if it is not
    cdef bint held                 # no request is read until `release`
    cdef bint choked               # too much is under way or unsent: not read until it is less
    cdef bint running              # `received` is at work
    cdef bint ending               # close as soon as all replies are written
    cdef bint muted                # CLIENT REPLY OFF
    cdef int flags                 # of the request that is looked at: PINNED, or 0
    cdef int mute_next             # CLIENT REPLY SKIP: this many commands go without a reply
    cdef object on_idle            # called once nothing is under way, or None
    cdef bint waking               # `_wake` will be called
    cdef readonly int protocol     # 2 or 3
    cdef readonly double active_at # monotonic seconds of the last request
    cdef readonly long long commands_seen  # requests so far
    cdef CommandSpec last_spec     # of the last request, or None
    cdef public object client      # Client: who it is, for the engine; None for a bare session
    cdef public object on_lost     # callable(session, reason), or None

    cdef bint push(self, const char *message, Py_ssize_t size, Blob blob) except -1
    cdef int received(self) except -1
    cdef int ended(self) except -1
    cdef int lost(self, str reason) except -1
    cdef int drained(self) except -1
    cdef int _read_on(self) except -1
    cdef int _one(self) except -1
    cdef Request _request(self, CommandSpec spec, int slot)
    cdef int _open_straight(self) except -1
    cdef bint _takes(self, CommandSpec spec) except -1
    cdef bint _gather(self, CommandSpec spec) except -1
    cdef bint _is_queued(self, CommandSpec spec, FrameReader reader) except -1
    cdef int _unbundle(self) except -1
    cdef bint _is_watched(self) noexcept
    cdef int _pin(self, CommandSpec spec) except -1
    cdef bytes _outward(self, Request request, const char *reply, Py_ssize_t size)
    cdef list _queued(self, Request request)
    cdef FrameReader _reread(self, Request request)
    cdef int _broken(self) except -1
    cdef int _put(self, Request request, const char *reply, Py_ssize_t size, Blob blob) except -1
    cdef int _advance(self) except -1
    cdef int _ease(self) except -1
    cdef int _too_slow(self) except -1
    cdef bint _is_full(self) noexcept
