# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Bytes <-> frames: Request, FrameReader and the small things that they are made of.

Strategy. A FrameReader looks at every byte once, wherever the reads cut it: it remembers what `scan` points at (`state`),
how many elements are `missing` and how long the bulk under way is, so a long bulk is skipped, never searched, and nothing
recurses however deep a reply nests: one counter of missing elements stands for the whole nesting.

Memory. All streams of an event loop read into one Scratch. Whole frames are used where they lie; only what is unfinished
when a read has been worked through moves into memory of the reader's own (`settle`). So an idle connection holds no buffer.
A large frame that fills such memory is not copied on: its Blob is shared (`share`) by whoever keeps it.

Rules. Nothing unvalidated leaves: integers are canonical, every line and bulk ends in CRLF, declared lengths allocate
nothing before bytes arrive. Requests that break these rules are refused in Redis's own words where it has some; Redis
itself is laxer in places, but bytes that two parsers may read differently must never reach a connection that others share.
Spans and frame pointers are valid until the next `room` or `settle`.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcpy, memmove

from rproxy.errors import ProtocolBroken
from rproxy.wire.inline import pack, printable, split_words

cdef enum:
    # what `scan` points at
    START = 0              # the first byte of a frame
    ARGUMENT = 1           # requests: '$' of the next argument
    ELEMENT = 2            # replies: the type byte of the next element
    BODY = 3               # the bytes of a bulk and their CRLF
    LINE = 4               # replies: somewhere in a line, before its CRLF

    INLINE_LIMIT = 65536   # bytes of an inline command without its line end
    LOCKED_ARGS = 10       # arguments of a request before authentication
    LOCKED_BULK = 16384    # bytes of an argument before authentication
    DIGITS_LIMIT = 20      # longest canonical 64-bit integer
    LINE_LIMIT = 1 << 20   # bytes of a simple string, error or number
    STREAMS_LIMIT = 16     # streamed items open at once
    SHARE_LEAST = 32768    # bytes from which a frame is shared instead of copied
    GROWTH_STEP = 65536    # least growth of the reader's own memory
cdef long long MISSING_LIMIT = 1LL << 48


class _NeedMore:
    """The answer of `request()` and `reply()` while a frame is incomplete."""

    def __repr__(self):
        return "NEED_MORE"


NEED_MORE = _NeedMore()


# --- FIFO: a ring of references; push, pop and peek are in frames.pxd ---

cdef int fifo_grow(Fifo *fifo) except -1:
    """Double the ring."""
    cdef Py_ssize_t room = fifo.room * 2 if fifo.room else 8, i
    cdef void **items = <void **>malloc(room * sizeof(void *))
    if items == NULL:
        raise MemoryError
    for i in range(fifo.count):
        items[i] = fifo.items[(fifo.head + i) & (fifo.room - 1)]
    free(fifo.items)
    fifo.items, fifo.room, fifo.head = items, room, 0
    return 0


cdef void fifo_free(Fifo *fifo) noexcept:
    """Let go of all entries, and give the ring's memory back."""
    while fifo.count:
        fifo_pop(fifo)
    free(fifo.items)
    fifo.items, fifo.room, fifo.head = NULL, 0, 0


# --- Memory ---

@cython.no_gc
@cython.final
cdef class Blob:

    def __cinit__(self, Py_ssize_t room):
        self.data = <char *>malloc(room if room else 1)
        if self.data == NULL:
            raise MemoryError
        self.room = room

    def __dealloc__(self):
        free(self.data)


@cython.final
cdef class Scratch:

    def __cinit__(self, Py_ssize_t room=65536):
        self.data = <char *>malloc(room)
        if self.data == NULL:
            raise MemoryError
        self.room = room

    def __dealloc__(self):
        free(self.data)


# --- Records ---

cdef class Owner:

    cdef int deliver(self, Request request, const char *reply, Py_ssize_t size, Blob blob) except -1:
        """Take the reply; the bytes are valid during the call, or as long as `blob` where there is one."""
        raise RuntimeError(f"{type(self).__name__} takes no replies")

    cdef int expect(self, Request request, Py_ssize_t size) except -1:
        """At least `size` bytes of reply are on their way: an owner that cannot take them may let go."""

    cdef int gather(self, Request request, Py_ssize_t size) except -1:
        """`size` bytes of pieces of the reply have come; they are kept until all are there."""

    cdef bint take_apart(self, Request request) except -1:
        """Whether the owner takes the request back, to send it in one-key pieces."""
        return False

    cdef int part(self, Request request, const char *reply, Py_ssize_t size) except -1:
        """One of several replies, not the last: that one is delivered."""


@cython.final
@cython.no_gc                  # what it refers to refers back through FIFOs, which no collector sees
@cython.freelist(4096)
cdef class Request:

    def __init__(self, bytes frame not None=b""):
        """A request of whole, valid frame bytes (an array of bulk strings)."""
        self.keep(PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame), None)
        self.slot = -1

    cdef int keep(self, const char *data, Py_ssize_t size, Blob blob) except -1:
        """Hold the frame: share `blob` where it holds the bytes already, else copy them."""
        self.size = size
        if blob is not None:
            self.blob = blob
            self.frame = <char *>data
            return 0
        if size <= <Py_ssize_t>sizeof(self.small):
            self.frame = self.small
        else:
            self.blob = Blob.__new__(Blob, size)
            self.frame = self.blob.data
        memcpy(self.frame, data, size)
        return 0

    cpdef list argv(self):
        """The arguments, as bytes."""
        cdef list found = []
        cdef Py_ssize_t at = 1, size
        cdef Py_ssize_t left = _digits(self.frame, &at)
        while left > 0:
            at += 1
            size = _digits(self.frame, &at)
            found.append(PyBytes_FromStringAndSize(self.frame + at, size))
            at += size + 2
            left -= 1
        return found

    @property
    def frame_bytes(self):
        """The frame as it is sent."""
        return PyBytes_FromStringAndSize(self.frame, self.size)

    @property
    def is_ghost(self):
        """Whether nobody waits for the reply any more."""
        return (self.flags & GHOST) != 0

    def __repr__(self):
        return f"<Request {self.size} bytes, slot {self.slot}, flags {self.flags}, hops {self.hops}>"


cdef Py_ssize_t _digits(const char *data, Py_ssize_t *at) noexcept:
    """The number at data[at] of a validated frame; moves `at` behind its CRLF."""
    cdef Py_ssize_t value = 0
    while data[at[0]] != c'\r':
        value = value * 10 + (data[at[0]] - c'0')
        at[0] += 1
    at[0] += 2
    return value


# --- The reader ---

@cython.final
cdef class FrameReader:

    def __cinit__(self, Scratch scratch not None, max_args=(1 << 31) - 1, max_bulk=512 << 20, max_frame=1 << 30):
        self.scratch = scratch
        self.max_args, self.max_bulk, self.max_frame = max_args, max_bulk, max_frame

    def __dealloc__(self):
        free(self.spans)

    # -- memory --

    cdef char *room(self, Py_ssize_t *size) except NULL:
        """Where the next bytes are to be written, and how many fit."""
        cdef Py_ssize_t left = self.end - self.begin, wanted
        if self.data == NULL or (self.data != self.scratch.data and left < self.scratch.room // 4):
            self._to_scratch(left)
        if self.data == self.scratch.data and self.end < self.scratch.room:
            size[0] = self.scratch.room - self.end
            return self.data + self.end
        if self.data == self.scratch.data or self.end == self.own.room:
            wanted = max(self.need, left + 1)
            self._move(min(wanted, max(2 * left, GROWTH_STEP)))
        size[0] = self.own.room - self.end
        return self.data + self.end

    cdef void added(self, Py_ssize_t size) noexcept:
        """`size` bytes were written where `room` said."""
        self.end += size

    cdef int settle(self) except -1:
        """A read is worked through: let go of the scratch, keep only the unfinished frame."""
        cdef Py_ssize_t left, taken
        if self.discard and self.state != START:
            if self.state == BODY:
                taken = min(self.end - self.scan, <Py_ssize_t>self.bulk)
                self.bulk -= taken
                self.scan += taken
            self.begin = self.scan
            self.discarded = True
        left = self.end - self.begin
        if left == 0:
            self.own, self.data = None, NULL
            self.scan -= self.begin
            self.begin = self.end = 0
        elif self.data == self.scratch.data or self.begin > 0:
            self._move(left)
        return 0

    cdef Blob share(self):
        """The memory that holds the finished frame, now shared; None where a copy is cheaper."""
        cdef Blob shared = self.own
        cdef char *frame = self.frame
        if shared is None or self.size < SHARE_LEAST or self.size < shared.room // 2:
            return None
        if frame < shared.data or frame >= shared.data + shared.room:
            return None
        if self.begin == self.end:
            self.own, self.data = None, NULL
            self.begin = self.scan = self.end = 0
        else:
            self._move(self.end - self.begin)
        return shared

    cdef Py_ssize_t pending(self) noexcept:
        """Bytes of the unfinished frame."""
        return self.end - self.begin

    cdef int _to_scratch(self, Py_ssize_t left) except -1:
        """Read on in the scratch, behind the few bytes that are left over."""
        if left:
            memcpy(self.scratch.data, self.data + self.begin, left)
        self.scan -= self.begin
        self.begin, self.end = 0, left
        self.own, self.data = None, self.scratch.data
        return 0

    cdef int _move(self, Py_ssize_t room) except -1:
        """Move the unfinished frame to the front of memory of our own with `room` bytes."""
        cdef Py_ssize_t left = self.end - self.begin
        cdef Blob blob = self.own
        cdef char *grown
        if blob is not None and self.begin == 0 and self.data == blob.data and room > blob.room:
            grown = <char *>realloc(blob.data, room)
            if grown == NULL:
                raise MemoryError
            blob.data, blob.room, self.data = grown, room, grown
            return 0
        blob = Blob.__new__(Blob, room)
        memcpy(blob.data, self.data + self.begin, left)
        self.scan -= self.begin
        self.begin, self.end = 0, left
        self.own, self.data = blob, blob.data
        return 0

    cdef int _break(self, str trouble) except -2:
        self.trouble = trouble
        return BROKEN

    # -- numbers --

    cdef int _number(self, long long *value) except -2:
        """The canonical integer line after the type byte at `scan`; moves `scan` behind its CRLF.

        FRAME, MORE, or BROKEN (without `trouble`: the caller knows what was counted).
        """
        cdef const char *p = self.data
        cdef Py_ssize_t first = self.scan + 1, at = first, stop = self.end
        cdef long long number = 0
        cdef bint negative = False
        cdef int digit
        if at < stop and p[at] == c'-':
            negative = True
            at += 1
            first = at
        while at < stop and p[at] != c'\r':
            digit = p[at] - c'0'
            if digit < 0 or digit > 9 or at - first >= DIGITS_LIMIT - 2:
                return BROKEN
            number = number * 10 + digit
            at += 1
        if at - first > 1 and p[first] == c'0':
            return BROKEN
        if at + 1 >= stop:
            return BROKEN if at < stop and at == first else MORE
        if p[at + 1] != c'\n' or at == first or (negative and number == 0):
            return BROKEN
        value[0] = -number if negative else number
        self.scan = at + 2
        return FRAME

    # -- requests --

    cdef int next_request(self) except -2:
        """Find the next request: FRAME with `frame`, `size`, `argc` and `spans`, else MORE or BROKEN.

        Empty arrays and empty lines are passed over: Redis does not answer them.
        """
        cdef int outcome
        while True:
            if self.state == START:
                if self.begin >= self.end:
                    return MORE
                if self.data[self.begin] != c'*':
                    outcome = self._inline()
                    if outcome == FRAME and self.argc == 0:
                        continue
                    return outcome
                outcome = self._head()
                if outcome != FRAME:
                    return outcome
                if self.missing <= 0:
                    self.begin = self.scan
                    continue
                self.state = ARGUMENT
            outcome = self._argument()
            if outcome != FRAME:
                return outcome
            if self.missing == 0:
                self.frame = self.data + self.begin
                self.size = self.scan - self.begin
                self.begin = self.scan
                self.state = START
                return FRAME

    cdef int _head(self) except -2:
        """The array header of a request."""
        cdef int outcome
        self.scan = self.begin
        outcome = self._number(&self.missing)
        if outcome == BROKEN or (outcome == FRAME and self.missing > self.max_args):
            return self._break("invalid multibulk length")
        if outcome == FRAME and self.locked and self.missing > LOCKED_ARGS:
            return self._break("unauthenticated multibulk length")
        self.argc = 0
        self.need = 0
        return outcome

    cdef int _argument(self) except -2:
        """One argument, or what is missing of it."""
        cdef int outcome
        cdef long long size
        if self.state == ARGUMENT:
            if self.scan >= self.end:
                return MORE
            if self.data[self.scan] != c'$':
                return self._break(f"expected '$', got '{printable(self.data[self.scan])}'")
            outcome = self._number(&size)
            if outcome == MORE:
                return MORE
            if outcome == BROKEN or size < 0 or size > self.max_bulk:
                return self._break("invalid bulk length")
            if self.locked and size > LOCKED_BULK:
                return self._break("unauthenticated bulk length")
            self.bulk = size
            self.need = self.scan - self.begin + size + 2
            if self.need > self.max_frame:
                return self._break("request too big")
            self._note_span(self.scan - self.begin, size)
            self.state = BODY
        outcome = self._bulk_end()
        if outcome == MORE:
            return MORE
        if outcome == BROKEN:
            return self._break("bulk string is not followed by CRLF")
        self.missing -= 1
        self.state = ARGUMENT
        return FRAME

    cdef int _bulk_end(self) noexcept:
        """Move `scan` behind the bulk under way and its CRLF, where all of it is there."""
        cdef Py_ssize_t left = self.end - self.scan - self.bulk
        cdef const char *behind = self.data + self.scan + self.bulk
        if left > 0 and behind[0] != c'\r' or left > 1 and behind[1] != c'\n':
            return BROKEN
        if left < 2:
            return MORE
        self.scan += self.bulk + 2
        return FRAME

    cdef int _note_span(self, Py_ssize_t start, Py_ssize_t size) except -1:
        cdef Span *grown
        cdef Py_ssize_t room
        if self.argc == self.span_room:
            room = self.span_room * 2 if self.span_room else 4
            grown = <Span *>realloc(self.spans, room * sizeof(Span))
            if grown == NULL:
                raise MemoryError
            self.spans, self.span_room = grown, room
        self.spans[self.argc].start = start
        self.spans[self.argc].size = size
        self.argc += 1
        return 0

    cdef int _inline(self) except -2:
        """A line of words, rewritten as an array; FRAME with argc 0 for an empty one."""
        cdef const char *newline
        cdef Py_ssize_t stop
        cdef int outcome
        if self.scan < self.begin:
            self.scan = self.begin
        newline = <const char *>memchr(self.data + self.scan, c'\n', self.end - self.scan)
        if newline == NULL:
            if self.end - self.begin > INLINE_LIMIT:
                return self._break("too big inline request")
            self.scan = self.end
            self.need = 0
            return MORE
        stop = newline - self.data
        self.scan = stop + 1
        if stop > self.begin and self.data[stop - 1] == c'\r':
            stop -= 1
        outcome = self._split_inline(self.data + self.begin, stop - self.begin)
        self.begin = self.scan
        return outcome

    cdef int _split_inline(self, const char *line, Py_ssize_t size) except -2:
        cdef list words = split_words(PyBytes_FromStringAndSize(line, size))
        cdef bytes word, head
        cdef Py_ssize_t at
        if words is None:
            return self._break("unbalanced quotes in request")
        self.argc = 0
        at = len(b"*%d\r\n" % len(words))
        for word in words:
            head = b"$%d\r\n" % len(word)
            self._note_span(at + len(head), len(word))
            at += len(head) + len(word) + 2
        if self.locked and self.argc > LOCKED_ARGS:
            return self._break("unauthenticated multibulk length")
        word = pack(words)
        self.inline_frame = Blob.__new__(Blob, len(word))
        memcpy(self.inline_frame.data, PyBytes_AS_STRING(word), len(word))
        self.frame = self.inline_frame.data
        self.size = len(word)
        return FRAME

    # -- replies --

    cdef int next_reply(self) except -2:
        """Find the end of the next reply or push: FRAME with `frame` and `size`, else MORE or BROKEN."""
        cdef int outcome
        if self.state == START:
            if self.begin >= self.end:
                return MORE
            self.scan = self.begin
            self.missing, self.streams, self.need = 1, 0, 0
            self.discarded = False
            self.state = ELEMENT
        while True:
            if self.state == BODY:
                outcome = self._body()
            elif self.state == LINE:
                outcome = self._line()
            elif self.missing > 0:
                outcome = self._element()
            elif self.streams:
                outcome = self._streamed_item()
            else:
                break
            if outcome != FRAME:
                return outcome
        self.frame = self.data + self.begin
        self.size = self.scan - self.begin
        self.begin = self.scan
        self.state = START
        return FRAME

    cdef int _element(self) except -2:
        """The head of the next element; says by `state` what follows it."""
        cdef char kind
        if self.scan >= self.end:
            return MORE
        kind = self.data[self.scan]
        if kind == c'$' or kind == c'=' or kind == c'!':
            return self._bulk_head(kind)
        if kind == c'*' or kind == c'~' or kind == c'%' or kind == c'>' or kind == c'|':
            return self._aggregate(kind)
        if kind == c'+' or kind == c'-' or kind == c':' or kind == c'_' or kind == c'#' \
                or kind == c',' or kind == c'(':
            self.missing -= 1
            self.state = LINE
            self.bulk = 0
            self.scan += 1
            return FRAME
        return self._break(f"unknown reply type '{printable(kind)}'")

    cdef int _bulk_head(self, char kind) except -2:
        cdef long long size
        cdef int outcome
        if self._is_streamed():
            return self._open_stream(kind)
        outcome = self._number(&size)
        if outcome == MORE:
            return MORE
        if outcome == BROKEN or size < -1 or (size == -1 and kind != c'$') or size > self.max_frame:
            return self._break("invalid bulk length in a reply")
        if kind == c';':
            if size == 0:
                self.streams -= 1
                self.missing = self.streamed[self.streams]
                return FRAME
        else:
            self.missing -= 1
        if size >= 0:
            self.bulk = size
            self.need = self.scan - self.begin + size + 2
            self.state = BODY
        return FRAME

    cdef int _aggregate(self, char kind) except -2:
        cdef long long count
        cdef int outcome
        if self._is_streamed():
            return self._open_stream(kind)
        outcome = self._number(&count)
        if outcome == MORE:
            return MORE
        if outcome == BROKEN or count < -1 or (count == -1 and kind != c'*') or count > MISSING_LIMIT:
            return self._break("invalid aggregate length in a reply")
        if kind == c'%' or kind == c'|':
            count *= 2
        if kind != c'|':
            self.missing -= 1
        if count > 0:
            self.missing += count
        if self.missing > MISSING_LIMIT * 4:
            return self._break("too many elements in a reply")
        return FRAME

    cdef bint _is_streamed(self) noexcept:
        return self.scan + 1 < self.end and self.data[self.scan + 1] == c'?'

    cdef int _open_stream(self, char kind) except -2:
        """`$?`, `*?`, `~?`, `%?`: put the count aside until the end mark."""
        if self.end - self.scan < 4:
            return MORE
        if self.data[self.scan + 2] != c'\r' or self.data[self.scan + 3] != c'\n' \
                or self.streams == STREAMS_LIMIT or kind == c';' or kind == c'=' or kind == c'!':
            return self._break("invalid streamed item in a reply")
        self.streamed[self.streams] = self.missing - (kind != c'|')
        self.streamed_kind[self.streams] = c';' if kind == c'$' else c'.'
        self.streams += 1
        self.missing = 0
        self.scan += 4
        return FRAME

    cdef int _streamed_item(self) except -2:
        """The next item of the streamed one that is open, or its end."""
        cdef char kind
        cdef int outcome
        if self.scan >= self.end:
            return MORE
        kind = self.data[self.scan]
        if self.streamed_kind[self.streams - 1] == c';':
            if kind != c';':
                return self._break("a streamed string has something else in it")
            return self._bulk_head(kind)
        if kind == c'.':
            return self._close_stream()
        self.missing = 1
        outcome = self._element()
        if outcome == MORE:
            self.missing = 0
        return outcome

    cdef int _close_stream(self) except -2:
        cdef Py_ssize_t left = self.end - self.scan
        cdef const char *mark = self.data + self.scan
        if left > 1 and mark[1] != c'\r' or left > 2 and mark[2] != c'\n':
            return self._break("an end mark is not followed by CRLF")
        if left < 3:
            return MORE
        self.streams -= 1
        self.missing = self.streamed[self.streams]
        self.scan += 3
        return FRAME

    cdef int _body(self) except -2:
        cdef int outcome = self._bulk_end()
        if outcome == BROKEN:
            return self._break("bulk string in a reply is not followed by CRLF")
        if outcome == FRAME:
            self.state = ELEMENT
        return outcome

    cdef int _line(self) except -2:
        """A simple line up to its CRLF; `bulk` counts its bytes over several reads."""
        cdef const char *p = self.data
        cdef const char *found = <const char *>memchr(p + self.scan, c'\r', self.end - self.scan)
        cdef Py_ssize_t stop = self.end if found == NULL else found - p
        self.bulk += stop - self.scan
        if self.bulk > LINE_LIMIT:
            return self._break("too long a line in a reply")
        if memchr(p + self.scan, c'\n', stop - self.scan) != NULL:
            return self._break("a line feed inside a line of a reply")
        self.scan = stop
        if self.end - stop < 2:
            return MORE
        if p[stop + 1] != c'\n':
            return self._break("a carriage return inside a line of a reply")
        self.scan = stop + 2
        self.state = ELEMENT
        return FRAME

    # -- for tests and tools --

    def feed(self, bytes chunk not None):
        """Add bytes as if they had been received."""
        cdef Py_ssize_t done = 0, size
        cdef char *place
        self.settle()
        while done < PyBytes_GET_SIZE(chunk):
            place = self.room(&size)
            size = min(size, PyBytes_GET_SIZE(chunk) - done)
            memcpy(place, PyBytes_AS_STRING(chunk) + done, size)
            self.added(size)
            done += size

    def request(self):
        """The next request's arguments as list[bytes], or NEED_MORE; raises ProtocolBroken."""
        cdef int outcome = self.next_request()
        cdef Py_ssize_t i
        if outcome == BROKEN:
            raise ProtocolBroken(self.trouble)
        if outcome == MORE:
            return NEED_MORE
        return [PyBytes_FromStringAndSize(self.frame + self.spans[i].start, self.spans[i].size)
                for i in range(self.argc)]

    def reply(self):
        """The next reply's bytes, or NEED_MORE; raises ProtocolBroken."""
        cdef int outcome = self.next_reply()
        if outcome == BROKEN:
            raise ProtocolBroken(self.trouble)
        return NEED_MORE if outcome == MORE else PyBytes_FromStringAndSize(self.frame, self.size)

    def pass_over(self, bint replies):
        """Find all whole requests, or replies, and make nothing of them; how many they were."""
        cdef Py_ssize_t count = 0
        while (self.next_reply() if replies else self.next_request()) == FRAME:
            count += 1
        return count

    def frame_bytes(self):
        """The frame found last, as it would be sent on."""
        return PyBytes_FromStringAndSize(self.frame, self.size)

    def lock(self, bint locked):
        """Whether Redis's small limits for clients that are not authenticated are in force."""
        self.locked = locked

    def forget(self):
        """Drop the bytes of the reply under way: nobody waits for it."""
        self.discard = True

    def held(self):
        """Bytes of memory of its own that the reader holds."""
        return self.own.room if self.own is not None else 0


cdef Py_ssize_t measure(const char *data, Py_ssize_t size) except -2:
    """Bytes of the first reply frame in data, 0 if it is incomplete, -1 if it is broken."""
    cdef FrameReader reader = FrameReader.__new__(FrameReader, Scratch.__new__(Scratch, 16))
    cdef int outcome
    reader.data, reader.end = <char *>data, size
    outcome = reader.next_reply()
    reader.data = NULL
    return reader.size if outcome == FRAME else outcome
