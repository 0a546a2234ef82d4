"""Bytes <-> the kernel: one socket, and the writes of one turn of the event loop. See stream.pyx."""
from rproxy.wire.frames cimport Blob, Fifo, FrameReader, Scratch


cdef class Tick:
    """One event loop's turn: what has to be written before it ends, and what is under way."""
    cdef object call_soon          # the loop's call_soon
    cdef Fifo touched              # streams with bytes to write
    cdef bint scheduled            # `flush` will be called in this turn
    cdef long long in_flight       # requests that nodes have not answered yet
    cdef double now                # monotonic seconds, taken at each read
    cdef readonly Scratch scratch  # where all streams of the loop read

    cdef int touch(self, Stream stream) except -1
    cdef int flush_all(self) except -1
    cdef double clock(self) noexcept


cdef class Piece:
    """Bytes of a Blob that wait to be written."""
    cdef Blob blob
    cdef const char *data          # first byte that is not written
    cdef Py_ssize_t size           # bytes that are not written


cdef class Stream:
    """One connected socket: reads into its FrameReader, writes once a turn."""
    cdef Tick tick
    cdef object loop               # event loop: add_reader and its opposites
    cdef int fd                    # the socket, -1 when closed or when a transport has it
    cdef object transport          # asyncio transport (TLS), or None
    cdef FrameReader reader
    cdef Blob tail                 # small writes, joined; None when empty
    cdef Py_ssize_t tail_begin     # first unwritten byte of the tail
    cdef Py_ssize_t tail_end       # one past its last byte
    cdef Py_ssize_t tail_kept      # a written tail up to this size is kept for the next bytes
    cdef Fifo queue                # Pieces that go before the tail
    cdef Py_ssize_t unwritten      # bytes in queue and tail
    cdef long long appended        # bytes ever given to write; once closed: bytes ever written
    cdef bint touched              # the tick will flush this stream
    cdef bint blocked              # the kernel takes no more: waiting until it does
    cdef bint reading              # the loop watches for bytes
    cdef bint at_end               # the peer has sent its last byte
    cdef bint closing              # close once everything is written
    cdef bint closed

    cdef int write(self, const char *data, Py_ssize_t size) except -1
    cdef int write_shared(self, Blob blob, const char *data, Py_ssize_t size) except -1
    cdef int flush(self) except -1
    cdef int _flushed(self) except -1
    cdef int pause(self) except -1
    cdef int resume(self) except -1
    cdef int finish(self) except -1
    cdef int close(self) except -1
    cdef int received(self) except -1
    cdef int ended(self) except -1
    cdef int lost(self, str reason) except -1
    cdef int drained(self) except -1
    cdef int _grow_tail(self, Py_ssize_t size) except -1
    cdef int _retire_tail(self) except -1
    cdef int _send(self) except -1
    cdef Py_ssize_t _send_queue(self) noexcept
    cdef int _sent(self, Py_ssize_t size) except -1
    cdef int _hand_over(self) except -1
    cdef int _read_away(self) except -1
    cdef int _wait_writable(self) except -1
    cdef int _work(self) except -1
    cdef int _fail(self, str reason) except -1
