# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What a command is, as data, and the look-up of a command by the name in a frame.

A CommandSpec is frozen: a server's news make new specs and a new table, never a change of one that
requests already point at. What is asked per command is prepared here once: the flags as bits, the
key specifications as C structs, the subcommands as a table of their own.

A CommandTable is an open-addressing hash table of C entries keyed by the lower-case name, at most
half full, so that a look-up reads the name twice and touches no Python object but the result. An
unknown subcommand finds its container: the server has the right error for it.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdlib cimport calloc, free

cdef frozenset NOT_STRAIGHT = frozenset(
    {"admin", "blocking", "pubsub", "teaches", "denied", "renamed", "paused"})
cdef frozenset NOT_STRAIGHT_CATEGORIES = frozenset({"@connection", "@transaction"})
cdef frozenset MERGED_POLICIES = frozenset({"", "agg_sum", "all_succeeded"})
"""Response policies that split.pyx can follow."""


@cython.final
cdef class CommandSpec:

    def __cinit__(self, str name not None, int arity, *, server_flags=(), acl_categories=(),
                  int first=0, int last=0, int step=1, tuple key_specs=(), int rule=RANGE,
                  str request_policy="", str response_policy="", subcommands=()):
        """Raises ValueError where the numbers make no sense."""
        if not name or arity == 0 or first < 0 or step < 1 or not RANGE <= rule <= HIDDEN:
            raise ValueError(f"no such command can be: {name!r}")
        self.name, self.arity, self.rule = name, arity, rule
        self.first, self.last, self.step = first, last, step
        self.server_flags = frozenset(server_flags)
        self.acl_categories = frozenset(acl_categories)
        self.request_policy, self.response_policy = request_policy, response_policy
        self.subcommands = {sub.name.partition("|")[2].encode(): sub for sub in subcommands}
        if self.subcommands:
            self._subcommands = CommandTable(subcommands)
        self.key_specs, self._keywords = key_specs, []
        for key_spec in key_specs:
            self._compile(key_spec)
        self._flags()

    cdef int _compile(self, tuple key_spec) except -1:
        """Add a key specification (rows.KeySpec) to `places`; one that says nothing is left out."""
        cdef Place *place = &self.places[self.place_count]
        cdef bytes keyword
        begin, find, _ = key_spec
        if begin[0] not in ("index", "keyword") or find[0] not in ("range", "keynum"):
            return 0
        if self.place_count == PLACES_LIMIT:
            raise ValueError(f"{self.name}: more than {PLACES_LIMIT} key specifications")
        place.start = begin[len(begin) - 1]
        if begin[0] == "keyword":
            keyword = begin[1].lower().encode()
            self._keywords.append(keyword)
            place.keyword = PyBytes_AS_STRING(keyword)
            place.keyword_size = PyBytes_GET_SIZE(keyword)
        place.counted = find[0] == "keynum"
        if place.counted:
            _, place.count_at, place.first_key, place.step = find
        else:
            _, place.last, place.step, place.limit = find
        if place.step < 1 or place.count_at < 0 or place.first_key < 0 or place.limit < 0 \
                or (place.keyword == NULL and place.start < 1):
            raise ValueError(f"{self.name}: its key specification makes no sense")
        self.place_count += 1
        return 0

    cdef int _flags(self) except -1:
        """Work out `flags` from everything else."""
        cdef bint keyed = self.first > 0 or self.rule != RANGE
        cdef bint special = not self.server_flags.isdisjoint(NOT_STRAIGHT) \
            or not self.acl_categories.isdisjoint(NOT_STRAIGHT_CATEGORIES)
        cdef bint split = self.request_policy == "multi_shard" and self.rule <= PAIRS \
            and self.first == 1 and (self.last == -1 or (self.last < -1 and self.step == 1)) \
            and self.response_policy in MERGED_POLICIES
        conditions = {
            WRITE: "write" in self.server_flags,
            READONLY: "readonly" in self.server_flags and "may_replicate" not in self.server_flags,
            BLOCKING: "blocking" in self.server_flags,
            KEYED: keyed,
            MULTI_SHARD: split,
            STRAIGHT: keyed and not special and self.rule != MIGRATE
            and (split or self.request_policy == ""),
            CONTAINER: len(self.subcommands) > 0,
            MULTI: self.name == "multi",
            EXEC: self.name == "exec",
            CHANNEL: any("not_key" in spec[2].split() for spec in self.key_specs),
        }
        self.flags = sum(flag for flag, holds in conditions.items() if holds)
        return 0

    @property
    def is_keyed(self):
        """Whether it can name keys (or channels that have a slot)."""
        return (self.flags & KEYED) != 0

    def takes(self, Py_ssize_t argc):
        """Whether a request may have argc arguments, the name among them."""
        return arity_ok(self, argc)

    def renewed(self, int arity, subcommands):
        """The same command with what a newer server changed: its arity and its subcommands."""
        return CommandSpec(
            self.name, arity, server_flags=self.server_flags, acl_categories=self.acl_categories,
            first=self.first, last=self.last, step=self.step, key_specs=self.key_specs,
            rule=self.rule, request_policy=self.request_policy,
            response_policy=self.response_policy, subcommands=subcommands,
        )

    def located(self, tuple key_specs not None):
        """The same command for one request: its keys are just where these specifications say."""
        return CommandSpec(
            self.name, self.arity, server_flags=self.server_flags,
            acl_categories=self.acl_categories, key_specs=key_specs, rule=SPECS,
            request_policy=self.request_policy, response_policy=self.response_policy,
        )

    def __repr__(self):
        keys = f"rule {self.rule}"
        if self.rule == RANGE:
            keys = f"{self.first}..{self.last}/{self.step}"
        return f"<CommandSpec {self.name} arity {self.arity}, keys {keys}, flags {self.flags}>"


@cython.final
cdef class CommandTable:

    def __cinit__(self, specs):
        """Of an iterable of CommandSpecs; of two with one name the later one is taken.

        A subcommand is found by the part behind its bar.
        """
        self._specs = {spec.name.rpartition("|")[2].encode(): spec for spec in specs}
        self._fill()

    def __dealloc__(self):
        free(self._entries)

    cdef int _fill(self) except -1:
        cdef unsigned int room = 8, at
        cdef bytes name
        while room < 2 * len(self._specs):
            room *= 2
        self._entries = <Entry *>calloc(room, sizeof(Entry))
        if self._entries == NULL:
            raise MemoryError
        self._mask = room - 1
        for name, spec in self._specs.items():
            digest = _digest(PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
            at = digest & self._mask
            while self._entries[at].spec != NULL:
                at = (at + 1) & self._mask
            self._entries[at] = Entry(
                PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name), digest, <void *>spec)
        return 0

    cdef CommandSpec find(self, const char *name, Py_ssize_t size):
        """The spec of a name in any case, or None."""
        cdef unsigned int digest = _digest(name, size), at = digest & self._mask
        cdef Entry *entry = &self._entries[at]
        while entry.spec != NULL:
            if entry.digest == digest and is_word(name, size, entry.name, entry.size):
                return <CommandSpec>entry.spec
            at = (at + 1) & self._mask
            entry = &self._entries[at]
        return None

    cdef CommandSpec find_frame(self, const char *frame, const Span *spans, Py_ssize_t argc):
        """The spec of a request, the subcommand's where it is known; None for unknown names."""
        cdef CommandSpec spec, sub
        if argc < 1:
            return None
        spec = self.find(frame + spans[0].start, spans[0].size)
        if spec is None or argc < 2 or not spec.flags & CONTAINER:
            return spec
        sub = spec._subcommands.find(frame + spans[1].start, spans[1].size)
        return spec if sub is None else sub

    def lookup(self, bytes name not None, bytes sub=None):
        """The spec of a name in any case, or None; an unknown sub finds its container."""
        cdef CommandSpec spec = self.find(PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
        cdef CommandSpec found = None
        if sub is not None and spec is not None and spec._subcommands is not None:
            found = spec._subcommands.find(PyBytes_AS_STRING(sub), PyBytes_GET_SIZE(sub))
        return spec if found is None else found

    def __iter__(self):
        return iter(self._specs.values())

    def __len__(self):
        return len(self._specs)

    def __repr__(self):
        return f"<CommandTable of {len(self._specs)}>"


cdef unsigned int _digest(const char *name, Py_ssize_t size) noexcept nogil:
    """FNV-1a of the name in lower case."""
    cdef unsigned int digest = 2166136261u
    cdef Py_ssize_t i
    for i in range(size):
        digest = (digest ^ lower(name[i])) * 16777619u
    return digest
