"""Keys that share one slot because of how they begin. See pins.pyx."""
from rproxy.routing.specs cimport CommandSpec, CommandTable
from rproxy.wire.frames cimport Blob, FrameReader


cdef struct Rule:
    const char *prefix     # how the keys begin
    Py_ssize_t size
    const char *mark       # "{tag}": what is put before them
    Py_ssize_t mark_size


cdef class Pins:
    """The prefixes that are pinned."""
    cdef readonly tuple pairs      # (prefix, tag) in bytes, the longest prefix first
    cdef list _kept                # owns the bytes that the rules point into
    cdef Rule *_rules              # as many as pairs, in their order
    cdef int _count
    cdef bint[256] _firsts         # first bytes of prefixes
    cdef bint _all                 # the empty prefix is pinned: every key is
    cdef Py_ssize_t _growth        # bytes by which a key can grow, with its head
    cdef Rule **_of                # scratch: the rule of each argument, or NULL
    cdef Py_ssize_t _room          # entries of _of
    cdef Blob _frame               # the last request that was rewritten

    cdef Rule *_rule(self, const char *key, Py_ssize_t size) noexcept
    cdef Rule *_rule_of_name(self, const char *name, Py_ssize_t size) noexcept
    cdef bint inward(self, FrameReader reader, CommandSpec spec) except -1
    cdef Py_ssize_t _find(self, FrameReader reader, CommandSpec spec) except -1
    cdef int _write(self, FrameReader reader, Py_ssize_t pinned) except -1
    cdef bint touches(self, CommandSpec spec) noexcept
    cdef bint may_change(self, CommandSpec spec, const char *reply, Py_ssize_t size) noexcept
    cdef bytes outward(
        self, CommandSpec spec, const char *reply, Py_ssize_t size, list queued)
    cdef bytes outward_message(self, const char *frame, Py_ssize_t size)


cdef class Rewriting:
    """A reply that is copied with the names of its keys changed."""
    cdef Pins pins
    cdef const char *at            # what is looked at
    cdef const char *end
    cdef const char *copied        # up to here everything is in `parts`
    cdef list parts                # bytes; empty while nothing had to be changed

    cdef int run(self, int shape) except -1
    cdef bint head(self, const char *kinds, long long *count) noexcept
    cdef bint key(self) except -1
    cdef bint skip(self) except -1
    cdef bint every(self) except -1
    cdef bint streams(self) except -1
    cdef bint anything(self) except -1
    cdef bint event(self) except -1
    cdef bint error(self) except -1
    cdef bint transaction(self, list queued) except -1
    cdef bytes result(self)
