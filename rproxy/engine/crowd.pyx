# cython: language_level=3, boundscheck=False, wraparound=False
"""The sessions that hear one topic: a message goes to all of them in one compiled loop.

Strategy. Messages come as RESP2 has them; RESP3 has another first byte, so that byte alone is changed to and fro. A small
message is copied to each client's unsent bytes; a large one is copied once for each protocol version, and then shared.

Rules. Writing to a session calls nobody back, so the loop may walk over the dict; who is too slow is dropped after it.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy

from rproxy.engine.session cimport Session
from rproxy.routing.pins cimport Pins
from rproxy.upstream.feed cimport Listener
from rproxy.wire.frames cimport Blob

cdef enum:
    SHARE_LEAST = 16384        # bytes from which a message is shared instead of copied


@cython.final
cdef class Crowd(Listener):

    def __cinit__(self, bint lines=False, Pins pins=None):
        self.sessions, self.lines, self.pins = {}, lines, pins

    def add(self, Session session not None):
        """The session hears what comes from now on."""
        self.sessions[session] = None

    def discard(self, Session session not None):
        """The session hears no more."""
        self.sessions.pop(session, None)

    cdef int hear(self, char *frame, Py_ssize_t size) except -1:
        cdef char first
        cdef list slow
        cdef bytes changed
        if self.pins is not None:
            changed = PyBytes_FromStringAndSize(frame, size)
            changed = self.pins.line(changed) if self.lines else self.pins.message(changed)
            frame, size = PyBytes_AS_STRING(changed), PyBytes_GET_SIZE(changed)
        first = frame[0]
        slow = self._tell(frame, size) if size < SHARE_LEAST else self._share(frame, size)
        frame[0] = first
        if slow is not None:
            for session in slow:
                session.close("does not read its messages fast enough")
        return 0

    cdef list _tell(self, char *frame, Py_ssize_t size):
        """Copy the message to every session; those that are too slow, or None."""
        cdef list slow = None
        cdef Session session
        for item in self.sessions:
            session = <Session>item
            if not self.lines:
                frame[0] = c'>' if session.protocol == 3 else c'*'
            if not session.push(frame, size, None):
                slow = slow or []
                slow.append(session)
        return slow

    cdef list _share(self, char *frame, Py_ssize_t size):
        """Give every session a share in a copy of the message; those that are too slow, or None."""
        cdef list slow = None
        cdef Session session
        cdef Blob blob
        cdef list blobs = [None, None]
        cdef bint resp3
        for item in self.sessions:
            session = <Session>item
            resp3 = not self.lines and session.protocol == 3
            blob = blobs[resp3]
            if blob is None:
                if not self.lines:
                    frame[0] = c'>' if resp3 else c'*'
                blob = blobs[resp3] = Blob.__new__(Blob, size)
                memcpy(blob.data, frame, size)
            if not session.push(blob.data, size, blob):
                slow = slow or []
                slow.append(session)
        return slow

    def __len__(self):
        return len(self.sessions)

    def __contains__(self, session):
        return session in self.sessions

    def __repr__(self):
        return f"<Crowd of {len(self.sessions)}>"
