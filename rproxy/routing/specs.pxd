"""What a command is, as data, and the lookup by name. See specs.pyx."""
from rproxy.wire.frames cimport Span


cdef enum CommandFlag:
    WRITE = 1              # changes data
    READONLY = 2           # changes nothing and may run twice
    BLOCKING = 4           # may wait on the server
    KEYED = 8              # can name keys
    MULTI_SHARD = 16       # request policy multi_shard: may be cut into one-slot pieces
    STRAIGHT = 32          # keyed, not blocking, nothing special: the straight path takes it
    CONTAINER = 64         # has subcommands


cdef class CommandSpec:
    """One command or subcommand; frozen."""
    cdef readonly str name             # lower case; "object|encoding" for a subcommand
    cdef readonly int arity            # arguments with the name; negative: at least so many
    cdef readonly int flags            # CommandFlag
    cdef readonly int first            # simple key range: first key's index, 0 for none
    cdef readonly int last             # simple key range: last key's index; negative: from the end
    cdef readonly int step             # simple key range: distance between keys
    cdef readonly int rule             # how keys are found: KeyRule of slots.pyx; 0 = simple range
    cdef readonly tuple key_specs      # the key specifications, for rules other than the range
    cdef readonly frozenset server_flags   # the server's own flags, as COMMAND prints them
    cdef readonly frozenset acl_categories # "@read", ...
    cdef readonly str request_policy   # "", "multi_shard", "all_shards", "all_nodes", "special"
    cdef readonly str response_policy  # "", "agg_sum", "all_succeeded", ...
    cdef readonly dict subcommands     # lower-case bytes name -> CommandSpec


cdef class CommandTable:
    """Name -> CommandSpec, in any case, without a Python object per look-up."""
    cdef CommandSpec find(self, const char *name, Py_ssize_t size)
    cdef CommandSpec find_frame(self, const char *frame, const Span *spans, Py_ssize_t argc)
