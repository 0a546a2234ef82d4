# cython: language_level=3, boundscheck=False, wraparound=False
"""A session's requests on a link of its own: the part of transactions and blocking commands that every command passes.

Strategy. A Pin owns the requests that go to the leased link and passes their replies on to the session. What is usual, a
command of the slot and its +QUEUED, is done here; errors, the end and the loss of the link are decided by the Python class
that derives from Pin (transactions.py, blocking.py): they are rare or come once a transaction.

Rules. Everything that was sent is kept until the end, so it can be sent again as a whole to another node. A request whose
reply the client has (KNOWN) may be sent again, but never answered again.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX

from rproxy.upstream.link cimport Link
from rproxy.wire.frames cimport GHOST, KNOWN, READONLY_REQUEST, Blob, Owner, Request


cdef enum:
    REQUEST_SIZE = 256         # bytes that a Request takes besides its frame, and its place in a list


cdef class Pin(Owner):

    def __init__(self, Owner session not None):
        self.session = session
        self.slot = self.depth = -1
        self.limit = INT64_MAX
        self.kept = []

    # -- requests --

    cdef int queue(self, Request request) except -1:
        """A command of the slot, which stands in the session's FIFO already: straight to the link."""
        self.keep(request)
        self.depth += 1
        return self._send(request)

    cpdef keep(self, Request request):
        """The request is part of this: it may have to be sent again."""
        request.owner = self
        self.kept.append(request)
        self.size += REQUEST_SIZE + request.size

    def silent(self, bytes frame not None, spec):
        """A request of rproxy's own, of whose reply no client hears."""
        cdef Request request = Request(frame)
        request.spec = spec
        request.flags |= KNOWN
        return request

    cdef int _send(self, Request request) except -1:
        self.outstanding += 1
        return self.link.send(request)

    def send(self, Request request not None):
        """Send one request that is kept."""
        self._send(request)

    def send_kept(self):
        """Send everything, in its order."""
        cdef Request request
        for request in self.kept:
            self._send(request)

    def rewrite(self, Request request not None, bytes frame not None):
        """Send another frame for the request next time."""
        request.keep(PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame), None)

    # -- replies --

    cdef int deliver(self, Request request, const char *reply, Py_ssize_t size, Blob blob) except -1:
        self.outstanding -= 1
        if reply[0] == c'-':
            self.refused(request, PyBytes_FromStringAndSize(reply, size))
        elif request is self.last:
            self._pass_on(request, reply, size, blob)
            self.finished()
        elif reply[0] != c'+' or size != 9:
            self.link.close("a command that should have been queued was answered")
        else:
            self._pass_on(request, reply, size, blob)
        if self.troubled and self.outstanding == 0:
            self.settled()
        return 0

    cdef int _pass_on(self, Request request, const char *reply, Py_ssize_t size, Blob blob) except -1:
        cdef Owner session = self.session
        if request.flags & (KNOWN | GHOST):
            return 0
        request.flags |= KNOWN
        if self.collecting and request is self.last:
            self.collected = PyBytes_FromStringAndSize(reply, size)
            return 0
        return session.deliver(request, reply, size, blob)

    cdef int expect(self, Request request, Py_ssize_t size) except -1:
        return self.session.expect(request, size)

    def settle(self, Request request not None, bytes reply not None):
        """Give the client its reply to a request, if it has none."""
        self._pass_on(request, PyBytes_AS_STRING(reply), PyBytes_GET_SIZE(reply), None)

    def unanswered(self):
        """The requests that the client has no reply to, oldest first."""
        cdef Request request
        return [request for request in self.kept if not request.flags & (KNOWN | GHOST)]

    def was_written(self, Request request not None):
        """Whether the lost link had written the request's first byte, or may have."""
        return request.start < self.link.stream.appended

    def changes_nothing(self, Request request not None):
        """Whether the request may run twice."""
        return (request.flags & READONLY_REQUEST) != 0

    # -- what happens seldom --

    def refused(self, request, reply):
        """An error: the node's, or that the link is lost."""
        raise NotImplementedError

    def finished(self):
        """The reply to `last` has come and is passed on."""
        raise NotImplementedError

    def settled(self):
        """Nothing is outstanding any more on a link that turned requests back."""
        raise NotImplementedError

    def left(self):
        """The client has gone."""
        raise NotImplementedError
