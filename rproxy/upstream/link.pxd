"""Link: one connection to a node, and the requests under way on it. See link.pyx."""
from rproxy.transport.stream cimport Stream, Tick
from rproxy.upstream.sink cimport Sink
from rproxy.wire.frames cimport Blob, Fifo, FrameReader, Request


cdef class LinkStream(Stream):
    cdef Link link                 # told of what the socket brings


cdef class Link(Sink):
    cdef Tick tick
    cdef readonly LinkStream stream
    cdef object lane               # Lane: judges errors, learns of the loss; None for a link of its own
    cdef readonly object pool      # the Pool that it belongs to
    cdef Fifo fifo                 # requests written and not answered, oldest first
    cdef readonly bint ready       # the handshake is done: it takes requests
    cdef public bint stalled       # it was silent for too long: what it says next is put off until `heed`
    cdef bint spoke                # it has said something since
    cdef readonly double heard_at  # monotonic seconds of the last byte received, or of the first request since
    cdef readonly long long replies  # replies received so far
    cdef public object on_push     # called with each push's bytes, or None: then a push ends the link

    cdef int send(self, Request request) except -1
    cdef int take_replies(self) except -1
    cdef int _put_off(self) except -1
    cdef bint _is_for_the_lane(self, Request request, const char *reply, Py_ssize_t size) except -1
    cdef bint _more_to_come(self, Request request, const char *reply, Py_ssize_t size) except -1
    cdef int _off_path(self, Request request, const char *reply, Py_ssize_t size, Blob blob) except -1
    cdef int _fail(self, str reason) except -1
    cdef int _under_way(self, FrameReader reader) except -1
    cdef int _out_of_step(self, char kind) except -1
