"""What a command is, as data, and the lookup by name. See specs.pyx."""
from rproxy.wire.frames cimport Span


cpdef enum CommandFlag:
    WRITE = 1              # changes data
    READONLY = 2           # changes nothing and may run twice
    BLOCKING = 4           # may wait on the server
    KEYED = 8              # can name keys
    MULTI_SHARD = 16       # request policy multi_shard: may be cut into one-slot pieces
    STRAIGHT = 32          # keyed, not blocking, nothing special: the straight path takes it
    CONTAINER = 64         # has subcommands
    CHANNEL = 128          # its "keys" are channels: they have a slot, but hold nothing
    MULTI = 256            # opens a transaction
    EXEC = 512             # runs it


cpdef enum KeyRule:
    RANGE = 0              # the simple range: first, last, step
    PAIRS = 1              # the same, and only whole groups of `step` arguments are right
    SPECS = 2              # by the key specifications
    SORT = 3               # the first argument, and the last STORE
    GEORADIUS = 4          # the first argument, and the last STORE or STOREDIST
    XREAD = 5              # the first half of what follows STREAMS
    MIGRATE = 6            # the third argument, or what follows KEYS
    HIDDEN = 7             # there are keys, but nobody told where


cdef enum:
    PLACES_LIMIT = 8       # key specifications of one command


cdef struct Place:
    # One key specification, compiled. Where the search begins:
    const char *keyword    # lower case, searched for from `start`; NULL: `start` is the place
    Py_ssize_t keyword_size
    int start              # an argument's index; for a keyword negative: backwards from the end
    # How the keys are found from there:
    bint counted           # an argument tells how many keys there are
    int count_at           # counted: index of the count, from where the search begins
    int first_key          # counted: index of the first key, from where the search begins
    int last               # not counted: index of the last key from there; negative: from the end
    int limit              # not counted, last is -1: only one in `limit` of the arguments is a key
    int step               # distance between keys


cdef class CommandSpec:
    """One command or subcommand; frozen."""
    cdef readonly str name             # lower case; "object|encoding" for a subcommand
    cdef readonly int arity            # arguments with the name; negative: at least so many
    cdef readonly int flags            # CommandFlag
    cdef readonly int first            # simple key range: first key's index, 0 for none
    cdef readonly int last             # simple key range: last key's index; negative: from the end
    cdef readonly int step             # simple key range: distance between keys
    cdef readonly int rule             # how keys are found: KeyRule
    cdef readonly tuple key_specs      # the key specifications, for rules other than the range
    cdef readonly frozenset server_flags   # the server's own flags, as COMMAND prints them
    cdef readonly frozenset acl_categories # "@read", ...
    cdef readonly str request_policy   # "", "multi_shard", "all_shards", "all_nodes", "special"
    cdef readonly str response_policy  # "", "agg_sum", "all_succeeded", ...
    cdef readonly dict subcommands     # lower-case bytes name -> CommandSpec
    cdef CommandTable _subcommands     # the same, for look-ups without an object; None without any
    cdef list _keywords                # owns the bytes that `places` point into
    cdef Place[PLACES_LIMIT] places    # key_specs, compiled
    cdef int place_count               # used entries of places

    cdef int _compile(self, tuple key_spec) except -1
    cdef int _flags(self) except -1


cdef struct Entry:
    const char *name       # lower case; the table owns it
    Py_ssize_t size        # bytes of it
    unsigned int digest    # its hash
    void *spec             # the CommandSpec, which the table owns; NULL: a free entry


cdef class CommandTable:
    """Name -> CommandSpec, in any case, without a Python object per look-up."""
    cdef dict _specs           # bytes name -> CommandSpec; owns what the entries point at
    cdef Entry *_entries       # open addressing, at most half full
    cdef unsigned int _mask    # entries - 1; their number is a power of two

    cdef CommandSpec find(self, const char *name, Py_ssize_t size)
    cdef CommandSpec find_frame(self, const char *frame, const Span *spans, Py_ssize_t argc)
    cdef int _fill(self) except -1


cdef inline unsigned char lower(char byte) noexcept nogil:
    cdef unsigned char code = <unsigned char>byte
    return code | 32 if 65 <= code <= 90 else code


cdef inline bint is_word(
        const char *text, Py_ssize_t size, const char *word, Py_ssize_t word_size) noexcept nogil:
    """Whether text, in any case, is the lower-case word."""
    cdef Py_ssize_t i
    if size != word_size:
        return False
    for i in range(size):
        if lower(text[i]) != <unsigned char>word[i]:
            return False
    return True


cdef inline bint arity_ok(CommandSpec spec, Py_ssize_t argc) noexcept:
    """Whether a request of argc arguments, the name among them, is one for this command."""
    if argc != spec.arity and (spec.arity >= 0 or argc < -spec.arity):
        return False
    return spec.rule != PAIRS or (argc - spec.first) % spec.step == 0
