# cython: language_level=3, boundscheck=False, wraparound=False
"""A client's socket, married to its Session."""
cimport cython

from rproxy.engine.session cimport Session, Shared
from rproxy.transport.stream cimport Stream, Tick


@cython.final
cdef class ClientStream(Stream):

    def __init__(self, Tick tick, Shared shared not None, client=None, bint locked=False):
        self.session = Session(shared, self, client, locked)

    # A session may end in the middle of any of these: the local name keeps it until the call is over.

    cdef int received(self) except -1:
        cdef Session session = self.session
        return session.received()

    cdef int ended(self) except -1:
        cdef Session session = self.session
        return session.ended()

    cdef int lost(self, str reason) except -1:
        cdef Session session = self.session
        self.session = None        # nothing is told any more: let go of each other
        return session.lost(reason)

    cdef int drained(self) except -1:
        cdef Session session = self.session
        return session.drained()
