# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Cut a request for keys of several slots into one-slot pieces, and merge the pieces' replies.

Cutting. The keys are grouped by slot; a slot's keys keep the order of the request, and pieces come
in the order in which their slots appear. Arguments are copied with their RESP heads, as they stand
in the validated frame, so a key and its value are one copy. Arguments behind the last key (the path
of JSON.MGET) end every piece. Everything is linear in the number of keys: one pass counts, the next
one writes into frames of the exact size.

Merging follows the command's response policy. Nothing but a correct whole may leave: a piece's
error is the answer to the whole, a reply of the wrong shape or with the wrong number of elements
becomes an error that says so. Elements of arrays are copied as they are, only their ends are
looked for.
MSET is the one command that can fail in part: its error tells how many of the keys were written.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp, memcpy, memset

from rproxy.routing.slots cimport Arguments, key_slot
from rproxy.routing.specs cimport MULTI_SHARD, CommandSpec, CommandTable
from rproxy.wire.frames cimport Span, measure

cdef enum:
    SLOTS = 16384
    NUMBER_DIGITS = 18     # longest number that is added up
    TAILS_LIMIT = 16777216 # bytes that the arguments behind the keys may take in all pieces

cdef enum Policy:
    ARRAY                  # arrays, in the order of the keys
    SUM                    # integers
    STATUS                 # all of them OK

cdef dict POLICIES = {"": ARRAY, "agg_sum": SUM, "all_succeeded": STATUS}

cdef int[SLOTS] PIECE_OF_SLOT
"""Scratch of `_group`: -1 between two calls."""
memset(PIECE_OF_SLOT, 255, sizeof(PIECE_OF_SLOT))


@cython.final
@cython.freelist(64)
cdef class Plan:

    def __dealloc__(self):
        free(self.piece_of)

    cdef int _cut(
            self, const char *frame, const Span *spans, Py_ssize_t argc, bint every_key) except -1:
        cdef Py_ssize_t step = self.spec.step, count
        cdef Piece *pieces
        self.total = (argc + self.spec.last) / step
        self.piece_of = <int *>malloc(2 * self.total * sizeof(int))
        pieces = <Piece *>malloc(self.total * sizeof(Piece))
        if self.piece_of == NULL or pieces == NULL:
            free(pieces)
            raise MemoryError
        self.counts = self.piece_of + self.total
        try:
            count = _group(frame, spans, self.total, step, every_key, self.piece_of, pieces)
            if count * _tail_size(self.spec, spans, argc) > TAILS_LIMIT:
                raise OverflowError(f"the last argument of {self.spec.name} is too long")
            self._build(frame, spans, argc, pieces, count)
        finally:
            free(pieces)
        return 0

    cdef int _build(
            self, const char *frame, const Span *spans, Py_ssize_t argc, Piece *pieces,
            Py_ssize_t count) except -1:
        """Make the frames of the pieces that _group has counted."""
        cdef Py_ssize_t step = self.spec.step, i
        cdef const char *name = <const char *>memchr(frame, c'\n', spans[0].start) + 1
        cdef Py_ssize_t name_size = frame + spans[0].start + spans[0].size + 2 - name
        cdef Py_ssize_t behind = argc + self.spec.last      # the last key, or its value
        cdef const char *group
        cdef const char *tail = frame + spans[behind].start + spans[behind].size + 2
        cdef Py_ssize_t tail_size = _tail_size(self.spec, spans, argc)
        cdef Piece *piece
        self.frames, self.slots = [None] * count, [None] * count
        for i in range(count):
            piece = &pieces[i]
            self.counts[i] = piece.keys
            self.slots[i] = piece.slot
            piece.size += tail_size
            self.frames[i] = _begin_frame(
                piece, step * piece.keys + argc - behind, name, name_size)
        for i in range(self.total):
            piece = &pieces[self.piece_of[i]]
            group = frame + spans[i * step].start + spans[i * step].size + 2
            size = _group_size(spans, i * step, step)
            memcpy(piece.at, group, size)
            piece.at += size
        for i in range(count):
            memcpy(pieces[i].at, tail, tail_size)
        return 0

    cpdef bytes merge(self, list replies):
        """The reply to the whole of whole replies to the pieces (bytes, in the pieces' order)."""
        cdef int policy = POLICIES[self.spec.response_policy]
        cdef Part part
        if len(replies) != len(self.frames):
            raise ValueError(f"{len(replies)} replies to {len(self.frames)} pieces")
        if policy == STATUS:
            return self._merge_statuses(replies)
        for reply in replies:
            part = _whole(<bytes?>reply)
            if _is_error(part.at, part.end):
                return <bytes>reply
        return self._merge_sums(replies) if policy == SUM else self._merge_arrays(replies)

    # -- arrays in the order of the keys --

    cdef bytes _merge_arrays(self, list replies):
        cdef Part *parts = <Part *>malloc(len(replies) * sizeof(Part))
        cdef Py_ssize_t size
        if parts == NULL:
            raise MemoryError
        try:
            size = self._open_arrays(replies, parts)
            return self._misshapen() if size < 0 else self._interleave(parts, size)
        finally:
            free(parts)

    cdef Py_ssize_t _open_arrays(self, list replies, Part *parts) except -2:
        """Point `parts` behind the replies' heads; bytes of all elements, -1 for a wrong head."""
        cdef Py_ssize_t i, size = 0
        cdef long long count
        for i in range(len(replies)):
            parts[i] = _whole(<bytes>replies[i])
            if not _take_number(&parts[i], c'*', &count) or count != self.counts[i]:
                return -1
            size += parts[i].end - parts[i].at
        return size

    cdef bytes _interleave(self, Part *parts, Py_ssize_t size):
        """One array of the elements of all parts, which have `size` bytes together."""
        cdef char[HEAD_ROOM] head
        cdef Py_ssize_t head_size = write_head(head, c'*', self.total), i, element
        cdef bytes merged = PyBytes_FromStringAndSize(NULL, head_size + size)
        cdef char *at = PyBytes_AS_STRING(merged)
        cdef Part *part
        memcpy(at, head, head_size)
        at += head_size
        for i in range(self.total):
            part = &parts[self.piece_of[i]]
            element = _element_size(part.at, part.end)
            if element <= 0:
                return self._misshapen()
            memcpy(at, part.at, element)
            at += element
            part.at += element
        for i in range(len(self.frames)):
            if parts[i].at != parts[i].end:
                return self._misshapen()
        return merged

    # -- integers --

    cdef bytes _merge_sums(self, list replies):
        cdef char[HEAD_ROOM] head
        cdef long long total = 0, number
        cdef Part part
        for reply in replies:
            part = _whole(<bytes>reply)
            if not _take_number(&part, c':', &number) or part.at != part.end \
                    or number > (1LL << 62) - total:
                return self._misshapen()
            total += number
        return PyBytes_FromStringAndSize(head, write_head(head, c':', total))

    # -- all succeeded, or the first error and how far it went --

    cdef bytes _merge_statuses(self, list replies):
        cdef bytes error = None
        cdef Part part
        cdef Py_ssize_t written = 0, i
        for i in range(len(replies)):
            part = _whole(<bytes?>replies[i])
            if part.at < part.end and part.at[0] == c'+':
                written += self.counts[i]
            elif error is None:
                error = replies[i] if _is_error(part.at, part.end) else self._misshapen()
        if error is None:
            return <bytes>replies[0]
        return error if written == 0 else _partly(error, written, self.total)

    cdef bytes _misshapen(self):
        name = self.spec.name.encode()
        return b"-ERR a node gave no proper reply to its part of '%b'\r\n" % name

    def __repr__(self):
        return f"<Plan {self.spec.name}: {self.total} keys in {len(self.frames)} pieces>"


cdef Plan cut(
        CommandSpec spec, const char *frame, const Span *spans, Py_ssize_t argc, bint every_key):
    """Cut a request by slot, or into one-key pieces.

    Raises ValueError for a command that is not MULTI_SHARD or a request without whole groups,
    OverflowError where arguments that every piece repeats would become too many bytes.
    """
    cdef Plan plan
    cdef Py_ssize_t behind = argc + spec.last
    if not spec.flags & MULTI_SHARD or behind < spec.step or behind % spec.step:
        raise ValueError(f"no request that can be cut: {spec.name} with {argc - 1} arguments")
    plan = Plan.__new__(Plan)
    plan.spec = spec
    plan._cut(frame, spans, argc, every_key)
    return plan


def cut_request(CommandTable table not None, list argv not None, bint every_key=False):
    """Cut a request made of bytes, the name first; raises ValueError as `cut` does."""
    cdef Arguments words = Arguments(argv)
    cdef const char *frame = PyBytes_AS_STRING(words.frame)
    cdef CommandSpec spec = table.find_frame(frame, words.spans, words.argc)
    if spec is None:
        raise ValueError("no such command")
    return cut(spec, frame, words.spans, words.argc, every_key)


def elements(bytes reply not None):
    """The elements of an array, each as its bytes; None where the reply is no array, or not whole."""
    cdef Part part = _whole(reply)
    cdef long long count
    cdef Py_ssize_t size
    cdef list found = []
    if not _take_number(&part, c'*', &count):
        return None
    while len(found) < count:
        size = _element_size(part.at, part.end)
        if size <= 0:
            size = measure(part.at, part.end - part.at)    # an error is an element like any other
        if size <= 0:
            return None
        found.append(part.at[:size])
        part.at += size
    return found if part.at == part.end else None


# --- Grouping ---

cdef Py_ssize_t _group(
        const char *frame, const Span *spans, Py_ssize_t total, Py_ssize_t step, bint every_key,
        int *piece_of, Piece *pieces) noexcept:
    """Find the piece of every key; how many pieces there are, with their slots, keys and sizes."""
    cdef Py_ssize_t i, at, count = 0
    cdef int slot, index
    for i in range(total):
        at = i * step + 1
        slot = key_slot(frame + spans[at].start, spans[at].size)
        index = -1 if every_key else PIECE_OF_SLOT[slot]
        if index < 0:
            index = count
            pieces[index] = Piece(slot, 0, 0, NULL)
            PIECE_OF_SLOT[slot] = index
            count += 1
        piece_of[i] = index
        pieces[index].keys += 1
        pieces[index].size += _group_size(spans, i * step, step)
    for i in range(count):
        PIECE_OF_SLOT[pieces[i].slot] = -1
    return count


cdef inline Py_ssize_t _group_size(const Span *spans, Py_ssize_t before, Py_ssize_t step) noexcept:
    """Bytes of the `step` arguments behind argument `before`, with their heads and CRLFs."""
    cdef Span last = spans[before + step]
    return last.start + last.size - spans[before].start - spans[before].size


cdef inline Py_ssize_t _tail_size(
        CommandSpec spec, const Span *spans, Py_ssize_t argc) noexcept:
    """Bytes of the arguments behind the last key and its values: each piece ends with them."""
    return _group_size(spans, argc + spec.last, -1 - spec.last)


cdef bytes _begin_frame(Piece *piece, Py_ssize_t argc, const char *name, Py_ssize_t name_size):
    """A frame with its head and the command's name; piece.at points at the room for the rest."""
    cdef char[HEAD_ROOM] head
    cdef Py_ssize_t head_size = write_head(head, c'*', argc)
    cdef bytes frame = PyBytes_FromStringAndSize(NULL, head_size + name_size + piece.size)
    cdef char *at = PyBytes_AS_STRING(frame)
    memcpy(at, head, head_size)
    memcpy(at + head_size, name, name_size)
    piece.at = at + head_size + name_size
    return frame


# --- Bits of RESP ---

cdef Py_ssize_t write_head(char *head, char kind, long long number) noexcept:
    """Write a type byte, a number from 0 and CRLF to head[HEAD_ROOM]; their size."""
    cdef char[HEAD_ROOM] digits
    cdef Py_ssize_t count = 0, at = 1
    while number or count == 0:
        digits[count] = <char>(c'0' + number % 10)
        number = number / 10
        count += 1
    head[0] = kind
    while count:
        count -= 1
        head[at] = digits[count]
        at += 1
    head[at], head[at + 1] = c'\r', c'\n'
    return at + 2


cdef bint _take_number(Part *part, char kind, long long *number) noexcept:
    """Read a type byte, a number from 0 and CRLF, and move part.at behind them; else False."""
    cdef const char *at = part.at
    if at == part.end or at[0] != kind:
        return False
    at += 1
    number[0] = 0
    while at < part.end and c'0' <= at[0] <= c'9' and at - part.at <= NUMBER_DIGITS:
        number[0] = number[0] * 10 + (at[0] - c'0')
        at += 1
    if at == part.at + 1 or part.end - at < 2 or at[0] != c'\r' or at[1] != c'\n':
        return False
    part.at = at + 2
    return True


cdef Py_ssize_t _element_size(const char *at, const char *end) except -3:
    """Bytes of the element at `at`; 0 or less where it is not whole, or is an error.

    Strings and nils, which is all that servers send today, are measured here.
    """
    cdef Part part = Part(at, end)
    cdef long long size
    if _take_number(&part, c'$', &size):
        if size > end - part.at - 2 or part.at[size] != c'\r' or part.at[size + 1] != c'\n':
            return -1
        return part.at + size + 2 - at
    if end - at >= 5 and memcmp(at, b"$-1\r\n", 5) == 0:
        return 5
    if end - at >= 3 and memcmp(at, b"_\r\n", 3) == 0:
        return 3
    return -1 if _is_error(at, end) else measure(at, end - at)


cdef inline bint _is_error(const char *at, const char *end) noexcept:
    return at < end and (at[0] == c'-' or at[0] == c'!')


cdef inline Part _whole(bytes reply):
    cdef const char *at = PyBytes_AS_STRING(reply)
    return Part(at, at + PyBytes_GET_SIZE(reply))


cdef bytes _partly(bytes error, Py_ssize_t written, Py_ssize_t total):
    """The error of an MSET of which some keys were written; begins with the server's code word."""
    cdef bytes text = error.partition(b"\r\n")[2] if error.startswith(b"!") else error[1:]
    code, _, why = b" ".join(text.split()).partition(b" ")
    then = b", then: " + why if why else b""
    return b"-%b %d of %d keys were written%b\r\n" % (code, written, total, then)
