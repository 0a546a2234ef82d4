"""Pin: a session's requests on a leased link. See pinned.pyx."""
from rproxy.upstream.link cimport Link
from rproxy.wire.frames cimport Blob, Owner, Request


cdef class Pin(Owner):
    cdef readonly Owner session    # whose requests these are
    cdef public Link link          # the leased link, or None
    cdef public int slot           # that the link is for; -1 while no key has come
    cdef public bint queueing      # commands for the slot go to the link without a look from Python
    cdef public bint blocking      # the client waits, and its leaving must be noticed at once
    cdef public bint troubled      # the node turns requests back: `settled` once none is outstanding
    cdef public Request last       # the request whose reply ends this: EXEC, a blocking command; or None
    cdef public list kept          # what would have to be sent again, in order
    cdef public Py_ssize_t size    # bytes of it, with what a request itself takes
    cdef public Py_ssize_t limit   # the most it may be
    cdef readonly int outstanding  # requests on the link that are not answered
    cdef public bint collecting    # the reply to `last` is kept here: it is not the whole
    cdef public bytes collected    # that reply, or None
    cdef public list order         # specs of all commands of a transaction, where `kept` does not say it; or None
    cdef public int depth          # commands of an open transaction; -1 where there is none

    cdef int queue(self, Request request) except -1
    cpdef keep(self, Request request)
    cdef int _pass_on(self, Request request, const char *reply, Py_ssize_t size, Blob blob) except -1
    cdef int _send(self, Request request) except -1
