"""Feed: one connection on which a node pushes messages; Topic: what is subscribed. See feed.pyx."""
from rproxy.transport.stream cimport Stream, Tick
from rproxy.wire.frames cimport Fifo, Request


cdef enum TopicKind:
    CHANNEL = 0            # SUBSCRIBE
    PATTERN = 1            # PSUBSCRIBE
    SHARD = 2              # SSUBSCRIBE
    MONITOR = 3            # MONITOR: every command that a node runs


cdef class Listener:
    """Whoever hears a topic's messages."""
    cdef int hear(self, char *frame, Py_ssize_t size) except -1


cdef class Topic:
    """One channel, pattern or shard channel that this worker listens to."""
    cdef readonly int kind         # TopicKind
    cdef readonly bytes name       # of the channel, or the pattern
    cdef readonly bint everywhere  # every master has messages of its own for it: keyspace events, MONITOR
    cdef readonly Listener listener  # who hears it
    cdef public Feed home          # whose messages count where all nodes have the same; None: no feed yet
    cdef public object target      # the Station whose feed is to be the home, or None
    cdef public object wanted      # frozenset of Stations at which it has to be subscribed
    cdef readonly set places       # Stations at which it is or was to be subscribed
    cdef readonly set confirmed    # Stations whose node has confirmed it
    cdef public int refusals       # answers in a row that sent it elsewhere or put it off


cdef class Feed(Stream):
    cdef readonly object station   # Station: told of replies and of the loss
    cdef tuple topics              # of each kind: name -> Topic
    cdef Fifo fifo                 # requests of the handshake without a reply
    cdef readonly double heard_at  # monotonic seconds of the last byte received

    cdef int _one(self, char *frame, Py_ssize_t size) except -1
    cdef int _message(self, int kind, Py_ssize_t at, char *frame, Py_ssize_t size) except -1
    cdef int _line(self, char *frame, Py_ssize_t size) except -1
    cdef int _set_up(self, const char *frame, Py_ssize_t size) except -1
