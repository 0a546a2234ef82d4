"""Frames: the records that travel, and the reader that finds their ends. See frames.pyx."""
from cpython.ref cimport Py_DECREF, Py_INCREF


cdef enum Outcome:
    MORE = 0               # the frame is not complete yet
    FRAME = 1              # one validated frame: see the reader's fields
    BROKEN = -1            # the peer breaks the protocol: see FrameReader.trouble


cdef enum RequestFlag:
    READONLY_REQUEST = 1   # the command changes nothing: it may be sent again after a lost link
    GHOST = 2              # nobody waits for the reply any more: measure it and drop it
    GATED = 4              # a Gate counts this request home
    SETUP = 8              # the link's own: handshake, ASKING, heartbeat
    ASKED = 16             # preceded by ASKING on its link: must not be re-sent to the owner as it is
    APART = 32             # its command can be cut into one-key pieces
    MUTED = 64             # the client asked for no reply (CLIENT REPLY)
    SEVERAL = 128          # a whole transaction in one: several replies belong to it
    KNOWN = 256            # its reply was given already: it is sent again for its effect alone
    PINNED = 512           # its reply may hold keys under the servers' names
    MARK = 1024            # no request: `target` is called when everything before it is answered


cdef struct Span:
    Py_ssize_t start       # first byte, counted from the first byte of the frame
    Py_ssize_t size        # length in bytes


cdef struct Fifo:
    void **items           # ring of owned references
    Py_ssize_t head        # index of the oldest entry
    Py_ssize_t count       # entries
    Py_ssize_t room        # size of the ring, a power of two, or 0


cdef class Blob:
    """A block of bytes that several holders share instead of copying it."""
    cdef char *data            # malloc'ed
    cdef Py_ssize_t room       # allocated bytes


cdef class Owner:
    """Whoever waits for the reply to a Request."""
    cdef int deliver(self, Request request, const char *reply, Py_ssize_t size, Blob blob) except -1
    cdef int expect(self, Request request, Py_ssize_t size) except -1
    cdef int gather(self, Request request, Py_ssize_t size) except -1
    cdef bint take_apart(self, Request request) except -1
    cdef int part(self, Request request, const char *reply, Py_ssize_t size) except -1


cdef class Request:
    """One command on its way: the one record that travels through every layer."""
    # wire: the validated bytes
    cdef char *frame               # first byte; in `small` or in `blob`
    cdef Py_ssize_t size           # bytes of the frame
    cdef Blob blob                 # holds a frame that does not fit `small`
    cdef char[120] small           # holds a frame that fits
    # routing
    cdef public object spec               # CommandSpec, or None
    cdef public int slot                  # 0..16383, or NO_KEYS, CROSS_SLOT
    # engine
    cdef Owner owner               # who waits; None for the link's own
    cdef int flags                 # RequestFlag
    cdef public double deadline           # loop time in seconds; 0 for none
    cdef int index                 # which piece of a split request it is
    cdef bint done                 # the reply has come (and waits for its turn)
    cdef Blob reply                # the early reply, until it is its turn
    cdef const char *reply_start    # its first byte, in `reply`
    cdef Py_ssize_t reply_size     # bytes of it, or of its pieces so far
    # upstream
    cdef public int hops                  # redirections and retries so far
    cdef int parts                 # replies that belong to it, where they are several
    cdef int came                  # how many of them have come
    cdef long long start           # the link's count of bytes before this frame's first
    cdef public object gate               # the Gate that counts it home
    cdef public double hold_until         # loop time when waiting at gates ends; 0 before the first gate
    cdef public object last_error         # bytes of the last error that sent it back, or None
    cdef public object target             # the Pool that an ASK named, until it is sent there; without a slot: the
                                          # one that alone may answer. Of a mark: what is called

    cdef int keep(self, const char *data, Py_ssize_t size, Blob blob) except -1
    cpdef list argv(self)


cdef class Scratch:
    """The memory that every stream of one event loop reads into first."""
    cdef char *data
    cdef Py_ssize_t room


cdef class FrameReader:
    """Finds frame after frame in bytes that arrive in any pieces."""
    # the window of bytes
    cdef Scratch scratch           # where fresh bytes land while nothing is left over
    cdef Blob own                  # unfinished bytes between two reads; None when there are none
    cdef char *data                # first byte of the window: scratch or own
    cdef Py_ssize_t begin          # first byte of the frame under way
    cdef Py_ssize_t scan           # first byte not looked at yet
    cdef Py_ssize_t end            # one past the last byte received
    cdef Py_ssize_t need           # bytes that the frame needs at least, as far as known
    # the frame under way
    cdef int state                 # what `scan` points at
    cdef long long missing         # elements that still have to come
    cdef long long bulk            # bytes of the bulk under way
    cdef long long[16] streamed    # counts put aside while streamed items are open
    cdef char[16] streamed_kind    # what each of them is: ';' a string, '.' an aggregate
    cdef int streams               # entries of both in use
    cdef bint discard              # replies: forget the bytes of the frame under way
    cdef bint discarded            # replies: some bytes of the frame under way are forgotten
    # the finished frame
    cdef char *frame               # its first byte
    cdef Py_ssize_t size           # its bytes
    cdef Span *spans               # requests: the arguments
    cdef Py_ssize_t argc           # requests: how many
    cdef Py_ssize_t span_room      # allocated entries of spans
    cdef Blob inline_frame         # an inline command, rewritten as an array
    cdef str trouble               # what broke the protocol, in Redis's words
    # limits
    cdef long long max_args        # arguments of one request
    cdef long long max_bulk        # bytes of one argument
    cdef long long max_frame       # bytes of one frame
    cdef bint locked               # the client is not authenticated: Redis's small limits

    cdef char *room(self, Py_ssize_t *size) except NULL
    cdef void added(self, Py_ssize_t size) noexcept
    cdef int next_request(self) except -2
    cdef int next_reply(self) except -2
    cdef Blob share(self)
    cdef int settle(self) except -1
    cdef Py_ssize_t pending(self) noexcept
    cdef int _to_scratch(self, Py_ssize_t left) except -1
    cdef int _move(self, Py_ssize_t room) except -1
    cdef int _break(self, str trouble) except -2
    cdef int _number(self, long long *value) except -2
    cdef int _head(self) except -2
    cdef int _argument(self) except -2
    cdef int _bulk_end(self) noexcept
    cdef int _note_span(self, Py_ssize_t start, Py_ssize_t size) except -1
    cdef int _inline(self) except -2
    cdef int _split_inline(self, const char *line, Py_ssize_t size) except -2
    cdef int _element(self) except -2
    cdef int _aggregate(self, char kind) except -2
    cdef int _bulk_head(self, char kind) except -2
    cdef bint _is_streamed(self) noexcept
    cdef int _open_stream(self, char kind) except -2
    cdef int _streamed_item(self) except -2
    cdef int _close_stream(self) except -2
    cdef int _body(self) except -2
    cdef int _line(self) except -2


cdef int fifo_grow(Fifo *fifo) except -1
cdef void fifo_free(Fifo *fifo) noexcept


cdef inline int fifo_push(Fifo *fifo, object item) except -1:
    """Append an entry."""
    if fifo.count == fifo.room:
        fifo_grow(fifo)
    Py_INCREF(item)
    fifo.items[(fifo.head + fifo.count) & (fifo.room - 1)] = <void *>item
    fifo.count += 1
    return 0


cdef inline object fifo_pop(Fifo *fifo):
    """The oldest entry, or None; gives the memory of a ring back that has grown large and run empty."""
    cdef object item
    if fifo.count == 0:
        return None
    item = <object>fifo.items[fifo.head]
    fifo.head = (fifo.head + 1) & (fifo.room - 1)
    fifo.count -= 1
    if fifo.count == 0 and fifo.room > 1024:
        fifo_free(fifo)
    Py_DECREF(item)
    return item


cdef inline int fifo_put_back(Fifo *fifo, object item) except -1:
    """Make an entry that was just popped the oldest again."""
    if fifo.count == fifo.room:
        fifo_grow(fifo)
    Py_INCREF(item)
    fifo.head = (fifo.head - 1) & (fifo.room - 1)
    fifo.items[fifo.head] = <void *>item
    fifo.count += 1
    return 0


cdef inline object fifo_peek(Fifo *fifo, Py_ssize_t index):
    """The entry at `index`, the oldest being 0; there must be one."""
    return <object>fifo.items[(fifo.head + index) & (fifo.room - 1)]


cdef Py_ssize_t measure(const char *data, Py_ssize_t size) except -2
