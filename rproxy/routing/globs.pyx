# cython: language_level=3, boundscheck=False, wraparound=False
"""Redis's glob patterns, as PSUBSCRIBE and SCAN know them. Pure.

`*` stands for any bytes, `?` for one, `[a-z]` and `[^a-z]` for one byte of a set, a backslash takes the next byte as it is.
An unclosed set reaches to the pattern's end, and a range may be written backwards, as in Redis.

A stranger writes patterns, of any length and number: nothing is compiled from them or kept beside them. Each `*` takes the
first place where what follows it fits up to the next one, and is never tried again (for a glob that is enough), so a match
takes at most the product of both lengths.
"""


def matches(bytes pattern not None, bytes text not None):
    """Whether Redis says that the text matches the pattern."""
    cdef const unsigned char *p = pattern
    cdef const unsigned char *t = text
    cdef Py_ssize_t size = len(pattern), end = len(text), at = 0, done = 0
    cdef Py_ssize_t after_star = -1, taken = 0, following
    while done < end:
        if at < size and p[at] == c'*':
            at += 1
            after_star, taken = at, done
            continue
        following = at
        if at < size and _takes(p, size, &following, t[done]):
            at = following
            done += 1
        elif after_star < 0:
            return False
        else:                      # the last star takes one byte more
            taken += 1
            at, done = after_star, taken
    while at < size and p[at] == c'*':
        at += 1
    return at == size


def may_begin(bytes pattern not None, bytes prefix not None):
    """Whether something that begins with `prefix` can match the pattern (True in doubt)."""
    cdef const unsigned char *p = pattern
    cdef Py_ssize_t size = len(pattern), at = 0
    cdef unsigned char byte
    for byte in prefix:
        if at == size:
            return False
        if p[at] == c'*':          # it can stand for all the rest
            return True
        if not _takes(p, size, &at, byte):
            return False
    return True


cdef bint _takes(const unsigned char *p, Py_ssize_t size, Py_ssize_t *at, unsigned char byte) noexcept:
    """Whether the part of the pattern at p[at], which is no star, stands for the byte; moves `at` behind it."""
    cdef unsigned char letter = p[at[0]]
    at[0] += 1
    if letter == c'[':
        return _is_in_set(p, size, at, byte)
    if letter == c'?':
        return True
    if letter == c'\\' and at[0] < size:
        letter = p[at[0]]
        at[0] += 1
    return letter == byte


cdef bint _is_in_set(const unsigned char *p, Py_ssize_t size, Py_ssize_t *at, unsigned char byte) noexcept:
    """The same for a set whose inside begins at p[at]."""
    cdef Py_ssize_t i = at[0]
    cdef unsigned char low, high
    cdef bint negated = i < size and p[i] == c'^', found = False
    i += negated
    while i < size and p[i] != c']':
        low = high = p[i]
        if low == c'\\' and i + 1 < size:
            low = high = p[i + 1]
            i += 2
        elif i + 2 < size and p[i + 1] == c'-':
            high = p[i + 2]
            i += 3
        else:
            i += 1
        found = found or low <= byte <= high or high <= byte <= low
    at[0] = min(i + 1, size)
    return found != negated
