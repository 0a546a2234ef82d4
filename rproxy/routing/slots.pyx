# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A request -> its slot: CRC16, hash tags, and where a command's keys are.

Keys are found as ranges of argument indexes, never as lists: no rule yields more than a few ranges,
so nothing is allocated, however many keys there are. Each KeyRule of specs.pxd has a finder; what
its finder reads is what the server itself reads (db.c), so that both see the same keys, also in
odd requests: options are read from left to right, of two STOREs the last one counts, and a group
that is called STREAMS is a group.

Rules. Indexes are checked here: a finder may be given any request that fits or misfits the arity.
Keys that cannot be found are BAD_KEYS, and the request may go to any node: the server has the
right error for it, or names the node that it belongs to. The CRC reads four bytes a step, with
tables that follow from crcmod's.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.limits cimport INT_MAX
from libc.stdlib cimport free, malloc
from libc.string cimport memchr

import crcmod.crcmod

from rproxy.routing.specs cimport (
    CHANNEL, GEORADIUS, HIDDEN, MIGRATE, PAIRS, RANGE, SORT, SPECS, XREAD,
    CommandSpec, CommandTable, Place, is_word,
)

cdef enum:
    SLOTS_MASK = 16383
    COUNT_DIGITS = 10      # longest count of keys that is looked at

globals().update(
    NO_KEYS=NO_KEYS, CROSS_SLOT=CROSS_SLOT, BAD_KEYS=BAD_KEYS, RANGES_LIMIT=RANGES_LIMIT)


# --- Key -> slot ---

cdef unsigned short[4][256] CRC
"""CRC[n][byte]: what a byte adds to the checksum when n more bytes follow it."""

cdef int _make_crc() except -1:
    """XMODEM: polynomial x^16 + x^12 + x^5 + 1, initial value 0, nothing reversed."""
    cdef int n, byte
    table = crcmod.crcmod.Crc(0x11021, initCrc=0, rev=False, xorOut=0).table
    for byte in range(256):
        CRC[0][byte] = table[byte]
    for n in range(1, 4):
        for byte in range(256):
            CRC[n][byte] = <unsigned short>(CRC[n - 1][byte] << 8) ^ CRC[0][CRC[n - 1][byte] >> 8]
    return 0

_make_crc()


cdef unsigned short _crc16(const unsigned char *p, Py_ssize_t size) noexcept nogil:
    cdef unsigned short crc = 0
    while size >= 4:
        crc = CRC[3][p[0] ^ (crc >> 8)] ^ CRC[2][p[1] ^ (crc & 255)] ^ CRC[1][p[2]] ^ CRC[0][p[3]]
        p += 4
        size -= 4
    while size > 0:
        crc = <unsigned short>(crc << 8) ^ CRC[0][(crc >> 8) ^ p[0]]
        p += 1
        size -= 1
    return crc


cdef int key_slot(const char *key, Py_ssize_t size) noexcept nogil:
    """The slot of a key or its hash tag: what is between the first { and the first } behind it."""
    cdef const char *end = key + size
    cdef const char *left = <const char *>memchr(key, c'{', size)
    cdef const char *right
    if left != NULL:
        left += 1
        right = <const char *>memchr(left, c'}', end - left)
        if right != NULL and right > left:
            return _crc16(<const unsigned char *>left, right - left) & SLOTS_MASK
    return _crc16(<const unsigned char *>key, size) & SLOTS_MASK


# --- Request -> slot ---

cdef int assign_slot(
        CommandSpec spec, const char *frame, const Span *spans, Py_ssize_t argc) except? -9:
    """The slot of all keys of the request: 0..16383, or NO_KEYS, CROSS_SLOT, BAD_KEYS."""
    cdef KeyRange[RANGES_LIMIT] found
    cdef int count, i, slot = NO_KEYS
    if spec.rule == RANGE and 0 < spec.first == spec.last < argc:
        return key_slot(frame + spans[spec.first].start, spans[spec.first].size)
    count = find_keys(spec, frame, spans, argc, found)
    if count < 0:
        return BAD_KEYS
    for i in range(count):
        slot = _range_slot(frame, spans, &found[i], slot)
        if slot == CROSS_SLOT:
            break
    return slot


cdef int _range_slot(const char *frame, const Span *spans, KeyRange *keys, int slot) noexcept:
    """`slot` if the keys of the range have it too; the range's own slot if it was NO_KEYS."""
    cdef Py_ssize_t i = keys.first
    cdef int other
    while i <= keys.last:
        other = key_slot(frame + spans[i].start, spans[i].size)
        if slot != other and slot != NO_KEYS:
            return CROSS_SLOT
        slot = other
        i += keys.step
    return slot


# --- Where the keys are ---

ctypedef int (*Finder)(
    CommandSpec spec, const char *frame, const Span *spans, Py_ssize_t argc,
    KeyRange *found) noexcept

cdef Finder[8] FINDERS
FINDERS[<int>RANGE] = _find_range
FINDERS[<int>PAIRS] = _find_pairs
FINDERS[<int>SPECS] = _find_by_specs
FINDERS[<int>SORT] = _find_sort
FINDERS[<int>GEORADIUS] = _find_georadius
FINDERS[<int>XREAD] = _find_xread
FINDERS[<int>MIGRATE] = _find_migrate
FINDERS[<int>HIDDEN] = _find_hidden


cdef int find_keys(
        CommandSpec spec, const char *frame, const Span *spans, Py_ssize_t argc,
        KeyRange *found) noexcept:
    """Write the ranges of the request's keys to found[RANGES_LIMIT]; their number, or BAD_KEYS.

    Every index of a range is one of the request's arguments.
    """
    return FINDERS[spec.rule](spec, frame, spans, argc, found)


cdef int _note(
        KeyRange *found, int count, Py_ssize_t first, Py_ssize_t last, Py_ssize_t step) noexcept:
    """Add a range behind `count` others; the new count."""
    found[count].first, found[count].last, found[count].step = first, last, step
    return count + 1


cdef int _find_range(
        CommandSpec spec, const char *frame, const Span *spans, Py_ssize_t argc,
        KeyRange *found) noexcept:
    cdef Py_ssize_t last = spec.last if spec.last >= 0 else argc + spec.last
    if spec.first == 0 or last < spec.first:
        return 0
    if last >= argc:
        return BAD_KEYS
    return _note(found, 0, spec.first, last, spec.step)


cdef int _find_pairs(
        CommandSpec spec, const char *frame, const Span *spans, Py_ssize_t argc,
        KeyRange *found) noexcept:
    if (argc - spec.first) % spec.step:
        return BAD_KEYS
    return _find_range(spec, frame, spans, argc, found)


cdef int _find_hidden(
        CommandSpec spec, const char *frame, const Span *spans, Py_ssize_t argc,
        KeyRange *found) noexcept:
    return BAD_KEYS


# --- By key specifications ---

cdef int _find_by_specs(
        CommandSpec spec, const char *frame, const Span *spans, Py_ssize_t argc,
        KeyRange *found) noexcept:
    cdef int i, count = 0
    cdef Place *place
    cdef Py_ssize_t begin
    for i in range(spec.place_count):
        place = &spec.places[i]
        begin = place.start if place.keyword == NULL else _behind_keyword(place, frame, spans, argc)
        if begin == 0:
            continue
        if begin >= argc:
            return BAD_KEYS
        if place.counted:
            count = _find_counted(place, begin, frame, spans, argc, found, count)
        else:
            count = _find_from(place, begin, argc, found, count)
        if count < 0:
            return BAD_KEYS
    return count


cdef Py_ssize_t _behind_keyword(
        Place *place, const char *frame, const Span *spans, Py_ssize_t argc) noexcept:
    """The index behind the keyword, or 0 where there is none: an option that is not given."""
    cdef Py_ssize_t i = place.start, way = 1
    if i < 0:
        i, way = argc + i, -1
    while 0 < i < argc:
        if is_word(frame + spans[i].start, spans[i].size, place.keyword, place.keyword_size):
            return i + 1
        i += way
    return 0


cdef int _find_counted(
        Place *place, Py_ssize_t begin, const char *frame, const Span *spans, Py_ssize_t argc,
        KeyRange *found, int count) noexcept:
    """Add the keys that an argument counts; the new count of ranges, or BAD_KEYS."""
    cdef Py_ssize_t at = begin + place.count_at, first = begin + place.first_key, keys, last
    if at >= argc:
        return BAD_KEYS
    keys = _count(frame + spans[at].start, spans[at].size)
    last = first + (keys - 1) * place.step
    if keys < 0 or last >= argc:
        return BAD_KEYS
    return count if keys == 0 else _note(found, count, first, last, place.step)


cdef int _find_from(
        Place *place, Py_ssize_t begin, Py_ssize_t argc, KeyRange *found, int count) noexcept:
    """Add the range that starts at `begin`; the new count of ranges, or BAD_KEYS."""
    cdef Py_ssize_t last = begin + place.last
    if place.last < 0:
        last = argc + place.last
        if place.last == -1 and place.limit > 1:
            last = begin + (argc - begin) / place.limit - 1
    if last >= argc:
        return BAD_KEYS
    return count if last < begin else _note(found, count, begin, last, place.step)


cdef Py_ssize_t _count(const char *text, Py_ssize_t size) noexcept:
    """A canonical number from 0 to INT_MAX, or -1."""
    cdef Py_ssize_t value = 0, i
    if size < 1 or size > COUNT_DIGITS or (text[0] == c'0' and size > 1):
        return -1
    for i in range(size):
        if not c'0' <= text[i] <= c'9':
            return -1
        value = value * 10 + (text[i] - c'0')
    return value if value <= INT_MAX else -1


# --- Commands whose options say where the keys are ---

cdef struct Option:
    const char *word       # lower case; NULL ends a list
    Py_ssize_t size        # bytes of it
    int skip               # arguments that belong to it and are no options; or one of Mark


cdef enum Mark:
    KEY = -1               # the next argument is a key
    REST = -2              # everything that follows is keys, or keys and ids
    OTHER = -3             # no option of the list

cdef Option[5] SORT_OPTIONS = [
    Option("limit", 5, 2), Option("get", 3, 1), Option("by", 2, 1), Option("store", 5, KEY),
    Option(NULL, 0, OTHER)]
cdef Option[3] GEORADIUS_OPTIONS = [
    Option("store", 5, KEY), Option("storedist", 9, KEY), Option(NULL, 0, OTHER)]
cdef Option[6] XREAD_OPTIONS = [
    Option("block", 5, 1), Option("count", 5, 1), Option("group", 5, 2), Option("noack", 5, 0),
    Option("streams", 7, REST), Option(NULL, 0, OTHER)]
cdef Option[4] MIGRATE_OPTIONS = [
    Option("auth", 4, 1), Option("auth2", 5, 2), Option("keys", 4, REST), Option(NULL, 0, OTHER)]


cdef int _option(Option *option, const char *frame, Span span) noexcept:
    """What the argument means as an option of the list."""
    while option.word != NULL:
        if is_word(frame + span.start, span.size, option.word, option.size):
            break
        option += 1
    return option.skip


cdef int _find_sort(
        CommandSpec spec, const char *frame, const Span *spans, Py_ssize_t argc,
        KeyRange *found) noexcept:
    # the server looks at a STORE's own argument again, as if it were an option: so do we
    return _find_stored(SORT_OPTIONS, 2, 0, frame, spans, argc, found)


cdef int _find_georadius(
        CommandSpec spec, const char *frame, const Span *spans, Py_ssize_t argc,
        KeyRange *found) noexcept:
    return _find_stored(GEORADIUS_OPTIONS, 5, 1, frame, spans, argc, found)


cdef int _find_stored(
        Option *options, Py_ssize_t i, int key_skip, const char *frame, const Span *spans,
        Py_ssize_t argc, KeyRange *found) noexcept:
    """The first argument, and that of the last option (from argument i on) that names a key."""
    cdef Py_ssize_t stored = 0
    cdef int skip
    if argc < 2:
        return BAD_KEYS
    while i < argc:
        skip = _option(options, frame, spans[i])
        if skip == KEY and i + 1 < argc:
            stored = i + 1
            skip = key_skip
        i += 1 + max(skip, 0)
    _note(found, 0, 1, 1, 1)
    return _note(found, 1, stored, stored, 1) if stored else 1


cdef int _find_xread(
        CommandSpec spec, const char *frame, const Span *spans, Py_ssize_t argc,
        KeyRange *found) noexcept:
    cdef Py_ssize_t i = 1, keys
    cdef int skip = 0
    while i < argc:
        skip = _option(XREAD_OPTIONS, frame, spans[i])
        if skip < 0:
            break
        i += 1 + skip
    keys = argc - i - 1
    if i >= argc or skip != REST or keys < 1 or keys % 2:
        return BAD_KEYS
    return _note(found, 0, i + 1, i + keys / 2, 1)


cdef int _find_migrate(
        CommandSpec spec, const char *frame, const Span *spans, Py_ssize_t argc,
        KeyRange *found) noexcept:
    cdef Py_ssize_t i = 6
    cdef int skip
    if argc < 4:
        return BAD_KEYS
    while i < argc:
        skip = _option(MIGRATE_OPTIONS, frame, spans[i])
        if skip == REST:
            if spans[3].size > 0 or i + 1 == argc:
                return BAD_KEYS
            return _note(found, 0, i + 1, argc - 1, 1)
        i += 1 + max(skip, 0)
    return _note(found, 0, 3, 3, 1)


# --- For tests and the control plane ---

@cython.final
cdef class Arguments:

    def __cinit__(self, list argv not None):
        cdef Py_ssize_t at, i
        cdef bytes argument
        self.argc = len(argv)
        self.spans = <Span *>malloc((self.argc or 1) * sizeof(Span))
        if self.spans == NULL:
            raise MemoryError
        head = b"*%d\r\n" % self.argc
        parts, at = [head], len(head)
        for i in range(self.argc):
            argument = argv[i]
            head = b"$%d\r\n" % len(argument)
            parts += (head, argument, b"\r\n")
            self.spans[i].start, self.spans[i].size = at + len(head), len(argument)
            at += len(head) + len(argument) + 2
        self.frame = b"".join(parts)

    def __dealloc__(self):
        free(self.spans)


def slot_of(bytes key not None):
    """The slot of a key, 0..16383."""
    return key_slot(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))


def request_slot(CommandTable table not None, list argv not None):
    """The slot of a request (bytes, the name first), or NO_KEYS, CROSS_SLOT, BAD_KEYS.

    A command that the table lacks is BAD_KEYS. The arity is not looked at.
    """
    cdef Arguments words = Arguments(argv)
    cdef const char *frame = PyBytes_AS_STRING(words.frame)
    cdef CommandSpec spec = table.find_frame(frame, words.spans, words.argc)
    return BAD_KEYS if spec is None else assign_slot(spec, frame, words.spans, words.argc)


def request_keys(CommandTable table not None, list argv not None):
    """Indexes of a request's keys in the server's order; channels are no keys.

    Empty also where there is no such command or where keys cannot be found.
    """
    cdef Arguments words = Arguments(argv)
    cdef CommandSpec spec = table.find_frame(
        PyBytes_AS_STRING(words.frame), words.spans, words.argc)
    return [] if spec is None else keys_of(spec, argv)


def keys_of(CommandSpec spec not None, list argv not None):
    """The same for a request whose spec is known."""
    cdef Arguments words = Arguments(argv)
    cdef const char *frame = PyBytes_AS_STRING(words.frame)
    cdef KeyRange[RANGES_LIMIT] found
    cdef int i, count
    if spec.flags & CHANNEL:
        return []
    count = find_keys(spec, frame, words.spans, words.argc, found)
    return [key for i in range(count)
            for key in range(found[i].first, found[i].last + 1, found[i].step)]
