# cython: language_level=3, boundscheck=False, wraparound=False
"""One connection on which a node pushes messages: those of Pub/Sub, or the lines of MONITOR.

Strategy. A feed speaks RESP2, which every server has; its messages differ from RESP3's in the first byte alone, so whoever
hears them can make either of it without reading them. A message is told by its first bytes, its topic is looked up, and the
frame goes to the topic's Listener where it lies. Everything else (confirmations, errors, what the node ends by itself) is
rare and goes to the Station, in Python.

Rules. The nodes of a cluster pass plain messages on to one another, so a topic that is subscribed on several nodes would be
heard several times: only what its home feed brings counts, and what no other node can have, keyspace events and MONITOR.
A feed that breaks the protocol is closed; nothing but its subscriptions is lost, and the Station renews those.
"""
cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memcmp

from rproxy.transport.stream cimport Stream, Tick
from rproxy.wire.frames cimport (
    BROKEN, FRAME, Fifo, FrameReader, Owner, Request, fifo_free, fifo_pop, fifo_push,
)

cdef enum:
    TAIL_KEPT = 1 << 16        # feeds are few: they keep the memory of their writes
    EVENT_HEAD = 11            # bytes of "__keyspace@" and of "__keyevent@"

# How messages begin, each with the length of that.
cdef const char *MESSAGE = b"*3\r\n$7\r\nmessage\r\n"
cdef const char *PMESSAGE = b"*4\r\n$8\r\npmessage\r\n"
cdef const char *SMESSAGE = b"*3\r\n$8\r\nsmessage\r\n"
cdef enum:
    MESSAGE_SIZE = 17
    PMESSAGE_SIZE = 18

# How the lines end that a node under MONITOR shows of rproxy's own doings. Clients' commands never reach a node in these words:
# rproxy answers them itself.
cdef tuple OWN_DOINGS = (
    b'] "CLIENT" "SETNAME" "rproxy"\r\n', b'] "CLIENT" "ID"\r\n', b'] "ASKING"\r\n',
    b'] "CLIENT" "TRACKING" "ON" "BCAST"\r\n', b'] "CLUSTER" "SHARDS"\r\n', b'] "CLUSTER" "SLOTS"\r\n', b'] "CLUSTER" "NODES"\r\n',
)

# The names of the C enum, for Python; the stub declares them.
globals().update(CHANNEL=CHANNEL, PATTERN=PATTERN, SHARD=SHARD, MONITOR=MONITOR)


cdef class Listener:

    cdef int hear(self, char *frame, Py_ssize_t size) except -1:
        """Take a message; the bytes may be changed during the call, and are gone after it."""
        raise RuntimeError(f"{type(self).__name__} hears no messages")


@cython.final
cdef class Topic:

    def __init__(self, int kind, bytes name not None, Listener listener not None, bint everywhere=False):
        self.kind, self.name, self.listener, self.everywhere = kind, name, listener, everywhere
        self.places, self.confirmed, self.wanted = set(), set(), frozenset()

    def __repr__(self):
        state = "confirmed" if self.home is not None else "waiting"
        return f"<Topic {self.kind} {self.name!r} {state}, {len(self.confirmed)} of {len(self.wanted)} nodes>"


@cython.final
cdef class Feed(Stream):

    def __init__(self, Tick tick not None, station, tuple topics not None):
        """`topics` holds a dict for each TopicKind, name -> Topic, which the owner keeps up to date."""
        self.station, self.topics = station, topics
        self.reader = FrameReader(tick.scratch)
        self.tail_kept = TAIL_KEPT
        self.heard_at = tick.clock()

    def __dealloc__(self):
        fifo_free(&self.fifo)

    @property
    def stream(self):
        """The socket's stream: the feed itself."""
        return self

    def send_setup(self, Request request not None):
        """Write a request of the handshake; its owner gets the reply."""
        fifo_push(&self.fifo, request)
        self.write(request.frame, request.size)

    def say(self, bytes frames not None):
        """Write requests whose replies the station expects."""
        cdef const char *data = frames
        self.write(data, len(frames))

    def close_for(self, str reason not None):
        """End the feed for a reason of ours; the station is told."""
        self._fail(reason)

    cdef int lost(self, str reason) except -1:
        self.station.lost(self, reason)
        return 0

    cdef int received(self) except -1:
        """Hand on every whole frame that has come."""
        cdef FrameReader reader = self.reader
        cdef int outcome
        self.heard_at = self.tick.now
        while True:
            outcome = reader.next_reply()
            if outcome != FRAME:
                break
            self._one(reader.frame, reader.size)
            if self.closed:
                return 0
        if outcome == BROKEN:
            return self._fail(f"protocol error: {reader.trouble}")
        if self.tick.in_flight == 0:
            self.tick.flush_all()
        return 0

    cdef int _one(self, char *frame, Py_ssize_t size) except -1:
        if frame[0] == c'*':
            if size > MESSAGE_SIZE and memcmp(frame, MESSAGE, MESSAGE_SIZE) == 0:
                return self._message(CHANNEL, MESSAGE_SIZE, frame, size)
            if size > PMESSAGE_SIZE and memcmp(frame, PMESSAGE, PMESSAGE_SIZE) == 0:
                return self._message(PATTERN, PMESSAGE_SIZE, frame, size)
            if size > PMESSAGE_SIZE and memcmp(frame, SMESSAGE, PMESSAGE_SIZE) == 0:
                return self._message(SHARD, PMESSAGE_SIZE, frame, size)
        elif frame[0] == c'+' and size > 1 and c'0' <= frame[1] <= c'9':
            return self._line(frame, size)
        if self.fifo.count:
            return self._set_up(frame, size)
        self.station.replied(self, PyBytes_FromStringAndSize(frame, size))
        return 0

    cdef int _set_up(self, const char *frame, Py_ssize_t size) except -1:
        cdef Request request = <Request>fifo_pop(&self.fifo)
        cdef Owner owner = request.owner
        if owner is not None:
            owner.deliver(request, frame, size, None)
        return 0

    cdef int _message(self, int kind, Py_ssize_t at, char *frame, Py_ssize_t size) except -1:
        """A message whose topic's name stands at `at`, as a bulk string."""
        cdef Py_ssize_t start = at, name_size = _bulk(frame, &start)
        cdef dict topics = <dict>self.topics[kind]
        cdef object found = topics.get(PyBytes_FromStringAndSize(frame + start, name_size))
        cdef Topic topic
        if found is None:          # its unsubscription is under way
            return 0
        topic = <Topic>found
        if topic.home is not self:
            if not topic.everywhere:
                return 0
            if kind == PATTERN:    # behind the pattern stands the channel
                start += name_size + 2
                name_size = _bulk(frame, &start)
            if not _is_event(frame + start, name_size):
                return 0
        return topic.listener.hear(frame, size)

    cdef int _line(self, char *frame, Py_ssize_t size) except -1:
        """What a node under MONITOR shows of a command."""
        cdef Topic topic
        cdef bytes end
        for end in OWN_DOINGS:
            if size > len(end) and memcmp(frame + size - len(end), <const char *>end, len(end)) == 0:
                return 0
        for found in (<dict>self.topics[MONITOR]).values():
            topic = <Topic>found
            topic.listener.hear(frame, size)
        return 0

    def __repr__(self):
        return f"<Feed {self.station} {'closed' if self.closed else 'open'}>"


cdef Py_ssize_t _bulk(const char *frame, Py_ssize_t *at) noexcept:
    """The size of the bulk string whose '$' stands at frame[at]; moves `at` to its first byte."""
    cdef Py_ssize_t size = 0, i = at[0] + 1
    while frame[i] != c'\r':
        size = size * 10 + (frame[i] - c'0')
        i += 1
    at[0] = i + 2
    return size


cdef bint _is_event(const char *channel, Py_ssize_t size) noexcept:
    """Whether it is a channel of keyspace events, which only the key's own node publishes."""
    return size > EVENT_HEAD and (
        memcmp(channel, b"__keyspace@", EVENT_HEAD) == 0 or memcmp(channel, b"__keyevent@", EVENT_HEAD) == 0)
