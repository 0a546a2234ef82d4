# cython: language_level=3, boundscheck=False, wraparound=False
"""A transaction that arrives whole, MULTI to EXEC in one read, travels as one request with several replies.

Strategy. The session gathers the frames of MULTI and of the keyed commands that follow, all of one slot. When EXEC is among
what was read, everything leaves as one Request on the link that all clients share: nothing can come between, so the link is
in no special state before it or after it, and redirects, gates and lost links treat the transaction as a unit: it is sent
again as a whole, or not at all. Anything else (EXEC has not come yet, a watched key, a command without a key, another slot)
takes the transaction apart again, and it goes its way on a leased link: see transactions.py.

Rules. The client gets one reply a command, whatever happens: an error for the whole stands in EXEC's place, after an OK and
as many QUEUED as there were commands.
"""
cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memcpy

from rproxy.wire.frames cimport FRAME, GHOST, SEVERAL, Blob, FrameReader, Owner, Request, Scratch

cdef enum:
    ROOM_LEAST = 512           # bytes that a bundle begins with

cdef Scratch NO_SCRATCH = Scratch(16)
cdef bytes MULTI = b"*1\r\n$5\r\nMULTI\r\n"
cdef bytes EXEC = b"*1\r\n$4\r\nEXEC\r\n"
cdef const char *OK = b"+OK\r\n"
cdef const char *QUEUED = b"+QUEUED\r\n"


cdef Blob enlarged(Blob blob, Py_ssize_t used, Py_ssize_t size):
    """A Blob with the same bytes that has room for `size` more."""
    cdef Py_ssize_t room = ROOM_LEAST if blob is None else blob.room
    cdef Blob larger
    if blob is not None and used + size <= room:
        return blob
    while room < used + size:
        room *= 2
    larger = Blob.__new__(Blob, room)
    if used:
        memcpy(larger.data, blob.data, used)
    return larger


@cython.final
cdef class Bundle(Owner):

    def __cinit__(self, Owner session not None):
        self.session, self.slot = session, -1

    cdef int add(self, const char *frame, Py_ssize_t size, int slot) except -1:
        """One more command."""
        self.frames = enlarged(self.frames, self.size, size)
        memcpy(self.frames.data + self.size, frame, size)
        self.size += size
        self.count += 1
        if slot >= 0:
            self.slot = slot
        return 0

    cdef Request close(self, const char *frame, Py_ssize_t size):
        """EXEC has come: the request for it all."""
        cdef Request whole = Request.__new__(Request)
        self.add(frame, size, -1)
        whole.keep(self.frames.data, self.size, self.frames)
        whole.owner, whole.slot = self, self.slot
        whole.flags = SEVERAL
        whole.parts = self.count
        self.frames = None
        return whole

    cdef list requests(self):
        """The commands, each by itself."""
        cdef FrameReader reader = FrameReader(NO_SCRATCH)
        cdef Request request
        cdef list found = []
        reader.data, reader.end = self.frames.data, self.size
        while reader.next_request() == FRAME:
            request = Request.__new__(Request)
            request.keep(reader.frame, reader.size, None)
            request.owner, request.slot = self.session, -1
            found.append(request)
        reader.data = NULL
        return found

    # -- replies --

    cdef int part(self, Request request, const char *reply, Py_ssize_t size) except -1:
        if request.came == 1:      # perhaps not for the first time
            self.head_size, self.came = 0, 0
        return self._note(reply, size)

    cdef int _note(self, const char *reply, Py_ssize_t size) except -1:
        self.head = enlarged(self.head, self.head_size, size)
        memcpy(self.head.data + self.head_size, reply, size)
        self.head_size += size
        self.came += 1
        return 0

    cdef int deliver(self, Request request, const char *reply, Py_ssize_t size, Blob blob) except -1:
        """EXEC's reply, or an error for the whole."""
        cdef Blob head
        if self.came == 0:
            self._note(OK, 5)
        while self.came < request.parts - 1:
            self._note(QUEUED, 9)
        self._note(reply, size)
        head, self.head = self.head, None
        return self.session.deliver(request, head.data, self.head_size, head)

    cdef int expect(self, Request request, Py_ssize_t size) except -1:
        return self.session.expect(request, size)


@cython.final
cdef class Portion(Owner):
    """One slot's part of a client's transaction: what it answers counts as the client's until the whole is there."""

    def __cinit__(self, Request whole not None, callback):
        self.whole, self.callback = whole, callback

    cdef bint _is_wanted(self) noexcept:
        return not self.whole.flags & GHOST and self.whole.owner is not None

    cdef int deliver(self, Request request, const char *reply, Py_ssize_t size, Blob blob) except -1:
        self.callback(PyBytes_FromStringAndSize(reply, size))
        return 0

    cdef int expect(self, Request request, Py_ssize_t size) except -1:
        return self.whole.owner.expect(self.whole, size) if self._is_wanted() else 0


def several(list frames not None, int slot, Request whole not None, callback):
    """A request for MULTI, these commands and EXEC, a part of `whole`; `callback` gets EXEC's reply, or an error."""
    cdef Request request = Request(b"".join([MULTI, *frames, EXEC]))
    request.owner, request.slot, request.deadline = Portion(whole, callback), slot, whole.deadline
    request.flags |= SEVERAL
    request.parts = len(frames) + 2
    return request


def gather(Request whole not None, Py_ssize_t size):
    """So many bytes of the client's reply have come, and are kept until the whole is there."""
    if not whole.flags & GHOST and whole.owner is not None:
        whole.owner.gather(whole, size)
