# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Keys that share one slot because of how they begin: a hash tag is put before them, and taken off again.

A client's key `arq:job:1` becomes `{arq:}arq:job:1` at the servers where the prefix `arq:` is pinned: all such keys
have the tag's slot, so that transactions, scripts and commands for several of them run on a cluster as they do on one
server. Clients never see the tag.

Requests are rewritten where they are read, before anything else looks at them: `inward` finds the keys by the
command's own key rule and shows the reader a frame with the tags in it. From there on a pinned key is a key like any
other. Replies that hold keys are copied with the tags taken off, just before they are written: SHAPES says where in a
reply the keys are. Errors may quote a key anywhere.

Rules. What is no key is never changed: values, fields and channels may look like one. Only a script's reply is looked
at whole, as nobody knows what in it is a key. A client that writes a tag itself (`{arq:}arq:job:1`) means the same key.
The longest prefix counts; the empty one stands for all other keys. Patterns for keys match what clients call them: see `pattern`.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memchr, memcmp, memcpy, memset

from rproxy.routing.globs import matches, may_begin
from rproxy.routing.slots cimport KeyRange, RANGES_LIMIT, find_keys
from rproxy.routing.specs cimport CHANNEL, EXEC, KEYED, RANGE, CommandSpec
from rproxy.routing.split cimport HEAD_ROOM, write_head
from rproxy.wire.frames cimport Blob, FrameReader, Scratch, Span, measure

cdef enum:
    EVENT_SIZE = 11        # bytes of "__keyspace@" and of "__keyevent@"
    KEYSPACE_SIZE = 15     # bytes of EVENTS

cdef const char *KEYSPACE = b"__keyspace@0__:"

cdef enum Shape:
    FIRST                  # a list that begins with a key
    EVERY                  # a list of keys
    STREAMS                # keys, each with its entries: a list of pairs, or a map
    ANYTHING               # nobody knows: every string that begins like a pinned key is taken for one

SHAPES = {
    "blpop": FIRST, "brpop": FIRST, "bzpopmin": FIRST, "bzpopmax": FIRST,
    "lmpop": FIRST, "blmpop": FIRST, "zmpop": FIRST, "bzmpop": FIRST,
    "xread": STREAMS, "xreadgroup": STREAMS,
    "cluster|getkeysinslot": EVERY,
    "eval": ANYTHING, "eval_ro": ANYTHING, "evalsha": ANYTHING, "evalsha_ro": ANYTHING,
    "fcall": ANYTHING, "fcall_ro": ANYTHING,
    "slowlog|get": ANYTHING, "acl|log": ANYTHING,
}
"""Commands whose replies hold keys. KEYS, SCAN and RANDOMKEY are answered elsewhere, key by key."""

EVENTS = b"__keyspace@0__:"
"""Channels of keyspace events whose name ends in the key."""

cdef Scratch NO_SCRATCH = Scratch(16)
cdef bytes GLOB_BYTES = b"*?[]\\^"


@cython.final
cdef class Pins:

    def __cinit__(self, pairs):
        """Of (prefix, tag) in bytes; raises ValueError where a prefix or tag cannot be one."""
        cdef bytes prefix, tag, mark
        cdef int i
        self.pairs = tuple(sorted(pairs, key=lambda pair: (-len(pair[0]), pair)))
        self._kept, self._count = [], len(self.pairs)
        self._rules = <Rule *>calloc(self._count or 1, sizeof(Rule))
        if self._rules == NULL:
            raise MemoryError
        for i, (prefix, tag) in enumerate(self.pairs):
            if not tag or b"}" in tag:
                raise ValueError(f"cannot pin {prefix!r} to the tag {tag!r}")
            mark = b"{%b}" % tag
            self._kept += (prefix, mark)
            self._rules[i] = Rule(
                PyBytes_AS_STRING(prefix), len(prefix), PyBytes_AS_STRING(mark), len(mark))
            if prefix:
                self._firsts[<unsigned char>prefix[0]] = True
            self._all = self._all or not prefix
            self._growth = max(self._growth, len(mark) + HEAD_ROOM)

    def __dealloc__(self):
        free(self._rules)
        free(self._of)

    cdef Rule *_rule(self, const char *key, Py_ssize_t size) noexcept:
        """The rule for a client's key, or NULL."""
        cdef int i
        if not self._all and (size == 0 or not self._firsts[<unsigned char>key[0]]):
            return NULL
        for i in range(self._count):
            if self._rules[i].size <= size and memcmp(key, self._rules[i].prefix, self._rules[i].size) == 0:
                return &self._rules[i]
        return NULL

    cdef Rule *_rule_of_name(self, const char *name, Py_ssize_t size) noexcept:
        """The rule by which a key has this name at the servers, or NULL."""
        cdef int i
        cdef Rule *rule
        if size == 0 or name[0] != c'{':
            return NULL
        for i in range(self._count):
            rule = &self._rules[i]
            if rule.mark_size + rule.size <= size and memcmp(name, rule.mark, rule.mark_size) == 0 \
                    and memcmp(name + rule.mark_size, rule.prefix, rule.size) == 0:
                return rule
        return NULL

    # -- requests --

    cdef bint inward(self, FrameReader reader, CommandSpec spec) except -1:
        """Have the reader show its request under the servers' names; whether there is anything pinned in it.

        What it shows then is valid until the next call.
        """
        cdef Py_ssize_t pinned
        if not spec.flags & KEYED or spec.flags & CHANNEL:
            return False
        if spec.rule == RANGE and spec.first == spec.last \
                and (spec.first >= reader.argc or self._rule(
                    reader.frame + reader.spans[spec.first].start, reader.spans[spec.first].size) == NULL):
            return False
        pinned = self._find(reader, spec)
        if pinned:
            self._write(reader, pinned)
        return pinned > 0

    cdef Py_ssize_t _find(self, FrameReader reader, CommandSpec spec) except -1:
        """Note the rule of each pinned key in `_of`; how many there are."""
        cdef KeyRange[RANGES_LIMIT] found
        cdef int i, count = find_keys(spec, reader.frame, reader.spans, reader.argc, found)
        cdef Py_ssize_t at, pinned = 0
        cdef Rule *rule
        cdef Rule **grown
        if count <= 0:
            return 0
        if reader.argc > self._room:
            grown = <Rule **>realloc(self._of, reader.argc * sizeof(Rule *))
            if grown == NULL:
                raise MemoryError
            self._of, self._room = grown, reader.argc
        memset(self._of, 0, reader.argc * sizeof(Rule *))
        for i in range(count):
            at = found[i].first
            while at <= found[i].last:
                rule = self._rule(reader.frame + reader.spans[at].start, reader.spans[at].size)
                if rule != NULL and self._of[at] == NULL:
                    self._of[at] = rule
                    pinned += 1
                at += found[i].step
        return pinned

    cdef int _write(self, FrameReader reader, Py_ssize_t pinned) except -1:
        """Write the request with the tags in it, and have the reader show that."""
        cdef Py_ssize_t i, room = reader.size + pinned * self._growth
        cdef const char *source = reader.frame
        cdef char *out
        cdef Py_ssize_t done = 0, written = 0, before = 0
        cdef Rule *rule
        cdef Span *span
        if self._frame is None or self._frame.room < room or self._frame.room > 4 * room + 65536:
            self._frame = Blob.__new__(Blob, room + 1024)
        out = self._frame.data
        for i in range(reader.argc):
            span, rule = &reader.spans[i], self._of[i]
            if rule == NULL:
                before = span.start + span.size + 2
                span.start += written - done
                continue
            memcpy(out + written, source + done, before - done)
            written += before - done
            written += write_head(out + written, c'$', span.size + rule.mark_size)
            memcpy(out + written, rule.mark, rule.mark_size)
            done = span.start
            before = span.start + span.size + 2
            span.start, span.size = written, span.size + rule.mark_size
            written += rule.mark_size
        memcpy(out + written, source + done, reader.size - done)
        reader.frame, reader.size = out, written + reader.size - done
        if self._room > 65536:     # one huge request is no reason to keep its size
            free(self._of)
            self._of, self._room = NULL, 0
        return 0

    cdef bint touches(self, CommandSpec spec) noexcept:
        """Whether replies to the command hold keys wherever they come from."""
        return spec.flags & EXEC or spec.name in SHAPES

    # -- replies --

    cdef bint may_change(self, CommandSpec spec, const char *reply, Py_ssize_t size) noexcept:
        """Whether the reply has a tag in it, in a place where keys can be: most have not."""
        cdef const char *at = reply
        cdef const char *end = reply + size
        cdef int i
        if reply[0] != c'-' and (spec is None or not self.touches(spec)):
            return False
        while True:
            at = <const char *>memchr(at, c'{', end - at)
            if at == NULL:
                return False
            for i in range(self._count):
                if self._rules[i].mark_size <= end - at and memcmp(at, self._rules[i].mark, self._rules[i].mark_size) == 0:
                    return True
            at += 1

    cdef bytes outward(self, CommandSpec spec, const char *reply, Py_ssize_t size, list queued):
        """The reply with its keys as clients call them, or None where nothing has to be changed.

        `queued` are the specs of a transaction's commands, for EXEC.
        """
        cdef Rewriting rewriting = Rewriting.__new__(Rewriting)
        rewriting.pins = self
        rewriting.at = rewriting.copied = reply
        rewriting.end = reply + size
        rewriting.parts = []
        if reply[0] == c'-':
            rewriting.error()
        elif spec is None:
            return None
        elif spec.flags & EXEC:
            rewriting.transaction(queued)
        elif spec.name in SHAPES:
            rewriting.run(<int>SHAPES[spec.name])
        return rewriting.result()

    cdef bytes outward_message(self, const char *frame, Py_ssize_t size):
        """The same for a message of keyspace events."""
        cdef Rewriting rewriting = Rewriting.__new__(Rewriting)
        rewriting.pins = self
        rewriting.at = rewriting.copied = frame
        rewriting.end = frame + size
        rewriting.parts = []
        rewriting.event()
        return rewriting.result()

    # -- one key, channel, pattern or line --

    def to_server(self, bytes key not None):
        """What the servers call a client's key."""
        cdef Rule *rule = self._rule(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        return key if rule == NULL else rule.mark[:rule.mark_size] + key

    def to_client(self, bytes name not None):
        """What clients call a key of the servers."""
        cdef Rule *rule = self._rule_of_name(PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
        return name if rule == NULL else name[rule.mark_size:]

    def channel_to_server(self, bytes name not None):
        """The channel, or pattern, to subscribe for one that a client names: a key's events are under its name."""
        return EVENTS + self.to_server(name[len(EVENTS):]) if name.startswith(EVENTS) else name

    def channel_to_client(self, bytes name not None):
        """What clients call that channel or pattern."""
        return EVENTS + self.to_client(name[len(EVENTS):]) if name.startswith(EVENTS) else name

    def pattern(self, bytes pattern not None):
        """The pattern that finds a client's keys at the servers, and whether what is found has to be matched again.

        Where all keys that match are of one prefix, the servers do the work; where some may be, they are asked for all.
        """
        inside = [pair for pair in self.pairs if may_begin(pattern, pair[0])]
        if not inside:
            return pattern, any(may_begin(pattern, b"{%b}%b" % (tag, prefix)) for prefix, tag in self.pairs)
        marks = {tag for _, tag in inside}
        if len(marks) == 1 and any(pattern.startswith(escaped(prefix)) for prefix, _ in inside):
            return escaped(b"{%b}" % marks.pop()) + pattern, False
        return (pattern if pattern.startswith(b"*") else b"*"), pattern.strip(b"*") != b""

    def found(self, keys, bytes pattern=None):
        """Clients' names of keys that servers have found; those that match, where a pattern is given."""
        names = map(self.to_client, keys)
        return list(names) if pattern is None else [name for name in names if matches(pattern, name)]

    def line(self, bytes line not None):
        """A line of MONITOR as it would be if there were no tags."""
        for prefix, tag in self.pairs:
            bare = quoted(prefix)
            line = line.replace(b'"{%b}%b' % (quoted(tag), bare), b'"' + bare)
        return line

    def request(self, CommandSpec spec not None, bytes frame not None):
        """`inward` for tests: the frame as servers get it."""
        cdef FrameReader reader = FrameReader(NO_SCRATCH)
        reader.data, reader.end = PyBytes_AS_STRING(frame), len(frame)
        reader.next_request()
        reader.data = NULL
        self.inward(reader, spec)
        return reader.frame[:reader.size]

    def reply_to(self, CommandSpec spec, bytes reply not None, list queued=None):
        """`outward` for tests: the reply itself where nothing has to be changed."""
        cdef const char *data = reply
        if not self.may_change(spec, data, len(reply)):
            return reply
        return self.outward(spec, data, len(reply), queued or []) or reply

    def message(self, bytes frame not None):
        """A message of keyspace events as clients get it."""
        return self.outward_message(PyBytes_AS_STRING(frame), len(frame)) or frame

    def __repr__(self):
        return f"<Pins of {', '.join(repr(prefix) for prefix, _ in self.pairs)}>"


@cython.final
cdef class Rewriting:

    cdef int run(self, int shape) except -1:
        """Change the keys of a reply of that shape; stop at what has another one."""
        cdef long long count
        if shape == FIRST:
            if self.head(b"*", &count) and count > 0:
                self.key()
        elif shape == EVERY:
            self.every()
        elif shape == STREAMS:
            self.streams()
        else:
            self.anything()
        return 0

    cdef bint head(self, const char *kinds, long long *count) noexcept:
        """Pass over the head of an aggregate of one of the (two) kinds; False where there is none, or it is null."""
        cdef const char *at = self.at
        if at >= self.end or (at[0] != kinds[0] and at[0] != kinds[1]):
            return False
        at += 1
        count[0] = 0
        while at < self.end and c'0' <= at[0] <= c'9':
            count[0] = count[0] * 10 + (at[0] - c'0')
            at += 1
        if at == self.at + 1 or self.end - at < 2 or at[0] != c'\r':
            return False
        self.at = at + 2
        return True

    cdef bint key(self) except -1:
        """Pass over an element; if it is a string that begins like a pinned key, its tag goes."""
        cdef const char *start = self.at
        cdef char[HEAD_ROOM] head
        cdef long long size
        cdef const char *text
        cdef Py_ssize_t before = 0, head_size
        cdef Rule *rule
        if not self.head(b"$$", &size):
            self.at = start
            return self.skip()
        text = self.at
        self.at = text + size + 2
        if size > KEYSPACE_SIZE and text[0] == c'_' and memcmp(text, KEYSPACE, KEYSPACE_SIZE) == 0:
            before = KEYSPACE_SIZE
        rule = self.pins._rule_of_name(text + before, size - before)
        if rule == NULL:
            return True
        head_size = write_head(head, c'$', size - rule.mark_size)
        self.parts.append(self.copied[:start - self.copied])
        self.parts.append(head[:head_size])
        if before:
            self.parts.append(EVENTS)
        self.copied = text + before + rule.mark_size
        return True

    cdef bint skip(self) except -1:
        """Pass over an element; False at the end."""
        cdef Py_ssize_t size = measure(self.at, self.end - self.at)
        if size <= 0:
            return False
        self.at += size
        return True

    cdef bint every(self) except -1:
        cdef long long count
        if not self.head(b"*~", &count):
            return False
        while count > 0 and self.key():
            count -= 1
        return True

    cdef bint streams(self) except -1:
        cdef bint is_map = self.at[0] == c'%'
        cdef long long count, two
        if not self.head(b"*%", &count):
            return False
        while count > 0:
            if not is_map and not self.head(b"**", &two):
                return False
            if not self.key() or not self.skip():
                return False
            count -= 1
        return True

    cdef bint anything(self) except -1:
        """Every string, however deep: elements follow one another in the order in which they are read."""
        cdef long long count
        while self.at < self.end:
            if self.at[0] == c'$':
                self.key()
            elif not (self.head(b"*~", &count) or self.head(b"%>", &count)) and not self.skip():
                return False
        return True

    cdef bint event(self) except -1:
        """A message to a channel or pattern; those of keyspace events name a key in the channel or in the message."""
        cdef long long count, size
        cdef const char *channel
        cdef bint is_keyspace
        if not self.head(b"*>", &count) or not self.skip() or (count == 4 and not self.key()):
            return False
        channel = self.at
        if not self.head(b"$$", &size) or size < EVENT_SIZE:
            return False
        is_keyspace = memcmp(self.at, <const char *>b"__keyspace@", EVENT_SIZE) == 0
        if not is_keyspace and memcmp(self.at, <const char *>b"__keyevent@", EVENT_SIZE) != 0:
            return False
        self.at = channel
        return self.key() and (is_keyspace or self.key())

    cdef bint error(self) except -1:
        """An error: it may quote keys."""
        cdef bytes text = self.copied[:self.end - self.copied]
        cdef bytes bare = text
        for prefix, tag in self.pins.pairs:
            bare = bare.replace(b"{%b}%b" % (tag, prefix), prefix)
        if bare != text:
            self.parts.append(bare)
            self.copied = self.end
        return True

    cdef bint transaction(self, list queued) except -1:
        """EXEC's reply, perhaps with OK and QUEUED before it: each element by the command that it belongs to."""
        cdef long long count
        cdef CommandSpec spec
        cdef const char *start
        cdef Py_ssize_t size
        cdef bytes changed
        while self.at < self.end and self.at[0] == c'+':
            self.skip()
        if self.at < self.end and self.at[0] == c'-':
            return self.error()
        if not self.head(b"**", &count) or count != len(queued):
            return False
        for spec in queued:
            start = self.at
            if not self.skip():
                return False
            size = self.at - start
            changed = self.pins.outward(spec, start, size, [])
            if changed is not None:
                self.parts.append(self.copied[:start - self.copied])
                self.parts.append(changed)
                self.copied = self.at
        return True

    cdef bytes result(self):
        """The changed reply, or None where it was right as it was."""
        if not self.parts:
            return None
        self.parts.append(self.copied[:self.end - self.copied])
        return b"".join(self.parts)


def escaped(bytes text not None):
    """A glob pattern that matches just the text."""
    return b"".join(b"\\%c" % byte if byte in GLOB_BYTES else b"%c" % byte for byte in text)


def quoted(bytes text not None):
    """The text as MONITOR shows it between its quotes."""
    named = {ord("\\"): b"\\\\", ord('"'): b'\\"', 10: b"\\n", 13: b"\\r", 9: b"\\t", 7: b"\\a", 8: b"\\b"}
    return b"".join(
        named.get(byte) or (b"%c" % byte if 32 <= byte < 127 else b"\\x%02x" % byte) for byte in text)
