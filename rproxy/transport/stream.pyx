# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""One socket on an event loop, for clients and nodes alike.

Strategy. Plain TCP and Unix sockets are read and written here with recv and send as soon as the loop says that they are ready:
that is a tenth cheaper than through an asyncio transport. TLS goes through a transport (protocol.py) behind the same verbs.
Reads land in the loop's Scratch. Writes are only appended; the Tick flushes every stream it was told of once, at the end of
the turn of the loop, so everything that one turn has for one socket leaves in one send. Large blocks are queued by reference.

Rules. `write` never calls back. `received`, `ended`, `lost` and `drained` tell the subclass; after `lost` or `close` nothing
is told any more. An exception in a subclass costs its own stream, never the loop.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.buffer cimport PyBUF_WRITE
from libc.errno cimport EAGAIN, EINTR, errno
from libc.string cimport memcpy, strerror
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close as close_fd

import logging

from rproxy.wire.frames cimport Blob, FrameReader, Scratch, fifo_free, fifo_peek, fifo_pop, fifo_push

log = logging.getLogger(__name__)


cdef extern from "sys/socket.h" nogil:
    ssize_t recv(int fd, void *data, size_t size, int flags)
    ssize_t send(int fd, const void *data, size_t size, int flags)
    int MSG_NOSIGNAL
    int MSG_DONTWAIT


cdef extern from "sys/uio.h" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t writev(int fd, const iovec *pieces, int count)


cdef enum:
    READ_LIMIT = 1 << 18       # bytes of one read: others want their turn
    READS_AWAY = 16            # reads at most before a connection is closed
    AWAY_SIZE = 65536          # bytes of each of them
    TAIL_LEAST = 512           # first size of a tail
    TAIL_KEPT = 1024           # default of Stream.tail_kept: an idle stream holds little
    PIECES_AT_ONCE = 16        # blocks of one writev
    SHARE_LEAST = 16384        # bytes from which a block is queued by reference


@cython.final
cdef class Tick:

    def __cinit__(self, loop=None, Py_ssize_t scratch=65536):
        self.call_soon = None if loop is None else loop.call_soon
        self.scratch = Scratch(scratch)
        self.clock()

    def __dealloc__(self):
        fifo_free(&self.touched)

    cdef double clock(self) noexcept:
        """Take the time, on the scale of `time.monotonic()`."""
        cdef timespec at
        clock_gettime(CLOCK_MONOTONIC, &at)
        self.now = at.tv_sec + at.tv_nsec * 1e-9
        return self.now

    cdef int touch(self, Stream stream) except -1:
        """Have `stream` flushed at the end of this turn."""
        stream.touched = True
        fifo_push(&self.touched, stream)
        if not self.scheduled and self.call_soon is not None:
            self.scheduled = True
            self.call_soon(self.flush)
        return 0

    cdef int flush_all(self) except -1:
        cdef Stream stream
        while self.touched.count:
            stream = <Stream>fifo_pop(&self.touched)
            stream.touched = False
            stream.flush()
        return 0

    def flush(self):
        """Write what this turn has gathered."""
        self.scheduled = False
        self.flush_all()

    @property
    def under_way(self):
        """Requests that nodes have not answered yet."""
        return self.in_flight

    @property
    def time(self):
        """Monotonic seconds, taken at the last read."""
        return self.now


@cython.final
@cython.no_gc
cdef class Piece:
    pass


cdef class Stream:

    def __cinit__(self, Tick tick not None, *args, **options):
        self.tick, self.fd, self.tail_kept = tick, -1, TAIL_KEPT

    def __dealloc__(self):
        fifo_free(&self.queue)
        if self.fd >= 0:
            close_fd(self.fd)

    # -- beginning and end --

    def attach(self, loop, int fd):
        """Take over a connected, non-blocking socket and begin to read."""
        self.loop, self.fd = loop, fd
        self.resume()

    def attach_transport(self, transport):
        """Take over a connected asyncio transport."""
        self.transport = transport
        self.reading = True

    cdef int close(self) except -1:
        """Close now; what is unwritten is dropped. Nothing is told to the subclass."""
        if self.closed:
            return 0
        self.closed = True
        self.pause()
        if self.blocked and self.fd >= 0:
            self.loop.remove_writer(self.fd)
        self.appended -= self.unwritten
        self.tail, self.unwritten = None, 0
        self.tail_begin = self.tail_end = 0
        fifo_free(&self.queue)
        if self.fd >= 0:
            close_fd(self.fd)
            self.fd = -1
        if self.transport is not None:
            self.transport.abort()
            self.transport = None
        return 0

    cdef int finish(self) except -1:
        """Close as soon as everything is written; read nothing more."""
        self.closing = True
        self.pause()
        if self.unwritten == 0:
            self._finished()
        return 0

    cdef int _fail(self, str reason) except -1:
        if self.closed:
            return 0
        self.close()
        self.lost(reason)
        return 0

    # -- what a subclass is told --

    cdef int received(self) except -1:
        """Bytes have been added to the reader."""
        return 0

    cdef int ended(self) except -1:
        """The peer has sent its last byte; it may still read."""
        self._fail("the peer closed the connection")
        return 0

    cdef int lost(self, str reason) except -1:
        """The connection is gone."""
        return 0

    cdef int drained(self) except -1:
        """All bytes are written, and reading is paused: perhaps because there were so many."""
        return 0

    # -- reading --

    def readable(self):
        """The loop says that the socket has bytes."""
        cdef Py_ssize_t size, got
        cdef char *place
        if self.closed:
            return
        place = self.reader.room(&size)
        got = recv(self.fd, place, min(size, READ_LIMIT), MSG_DONTWAIT)
        if got > 0:
            self.reader.added(got)
            self._work()
        elif got == 0:
            self.peer_ended()
        elif errno != EAGAIN and errno != EINTR:
            self.reader.settle()
            self._fail(strerror(errno).decode())

    cdef int _work(self) except -1:
        self.tick.clock()
        try:
            self.received()
        except Exception:
            log.exception("a connection is closed: reading from it failed")
            self._fail("internal error")
        self.reader.settle()
        return 0

    def peer_ended(self):
        """The peer has sent its last byte."""
        if self.closed:
            return
        self.at_end = True
        self.reader.settle()
        self.pause()
        self.ended()

    def room_view(self):
        """Where a transport is to put the next bytes."""
        cdef Py_ssize_t size
        cdef char *place = self.reader.room(&size)
        return PyMemoryView_FromMemory(place, min(size, READ_LIMIT), PyBUF_WRITE)

    def updated(self, Py_ssize_t size):
        """A transport has put `size` bytes there."""
        if self.closed:
            self.reader.settle()
            return
        self.reader.added(size)
        self._work()

    cdef int pause(self) except -1:
        """Read no more until `resume`; the peer's writes will stall."""
        if not self.reading:
            return 0
        self.reading = False
        if self.transport is not None:
            self.transport.pause_reading()
        elif self.fd >= 0:
            self.loop.remove_reader(self.fd)
        return 0

    cdef int resume(self) except -1:
        if self.reading or self.closed or self.at_end or self.closing:
            return 0
        self.reading = True
        if self.transport is not None:
            self.transport.resume_reading()
        elif self.fd >= 0:
            self.loop.add_reader(self.fd, self.readable)
        return 0

    # -- writing --

    cdef int write(self, const char *data, Py_ssize_t size) except -1:
        """Append bytes; they leave at the end of the turn."""
        if self.closed:
            return 0
        if self.tail is None or self.tail_end + size > self.tail.room:
            self._grow_tail(size)
        memcpy(self.tail.data + self.tail_end, data, size)
        self.tail_end += size
        self.unwritten += size
        self.appended += size
        if not self.touched and not self.blocked:
            self.tick.touch(self)
        return 0

    cdef int write_shared(self, Blob blob, const char *data, Py_ssize_t size) except -1:
        """Append bytes that `blob` holds, by reference where that is cheaper."""
        cdef Piece piece
        if size < SHARE_LEAST or blob is None:
            return self.write(data, size)
        if self.closed:
            return 0
        self._retire_tail()
        piece = Piece.__new__(Piece)
        piece.blob, piece.data, piece.size = blob, data, size
        fifo_push(&self.queue, piece)
        self.unwritten += size
        self.appended += size
        if not self.touched and not self.blocked:
            self.tick.touch(self)
        return 0

    cdef int _grow_tail(self, Py_ssize_t size) except -1:
        cdef Py_ssize_t held = self.tail_end - self.tail_begin, room
        cdef Blob grown
        room = TAIL_LEAST if self.tail is None else self.tail.room
        while room < held + size:
            room *= 2
        grown = Blob.__new__(Blob, room)
        if held:
            memcpy(grown.data, self.tail.data + self.tail_begin, held)
        self.tail, self.tail_begin, self.tail_end = grown, 0, held
        return 0

    cdef int _retire_tail(self) except -1:
        """Queue the tail as it is, so that a block can follow it."""
        cdef Piece piece
        if self.tail_end > self.tail_begin:
            piece = Piece.__new__(Piece)
            piece.blob, piece.data = self.tail, self.tail.data + self.tail_begin
            piece.size = self.tail_end - self.tail_begin
            fifo_push(&self.queue, piece)
        self.tail, self.tail_begin, self.tail_end = None, 0, 0
        return 0

    cdef int flush(self) except -1:
        """Write what the kernel takes; wait for the loop's word where it does not take all."""
        if self.closed or self.unwritten == 0 or self.blocked:
            return 0
        if self.transport is not None:
            self._hand_over()
        elif self.fd >= 0:
            self._send()
        return self._flushed()

    cdef int _flushed(self) except -1:
        """Tell what waits for everything to be written: the end, or a subclass that has paused reading."""
        if self.unwritten or self.closed:
            return 0
        if self.closing:
            self._finished()
        elif not self.reading and not self.blocked:
            self.drained()
        return 0

    cdef int _send(self) except -1:
        cdef Py_ssize_t sent
        while self.unwritten:
            if self.queue.count:
                sent = self._send_queue()
            else:
                sent = send(self.fd, self.tail.data + self.tail_begin,
                            self.tail_end - self.tail_begin, MSG_NOSIGNAL | MSG_DONTWAIT)
            if sent >= 0:
                self._sent(sent)
            elif errno == EAGAIN:
                return self._wait_writable()
            elif errno != EINTR:
                return self._fail(strerror(errno).decode())
        return 0

    cdef Py_ssize_t _send_queue(self) noexcept:
        cdef iovec[PIECES_AT_ONCE] pieces
        cdef Piece piece
        cdef int count = 0
        while count < PIECES_AT_ONCE and count < self.queue.count:
            piece = <Piece>fifo_peek(&self.queue, count)
            pieces[count].iov_base = <void *>piece.data
            pieces[count].iov_len = piece.size
            count += 1
        if count < PIECES_AT_ONCE and self.tail_end > self.tail_begin:
            pieces[count].iov_base = self.tail.data + self.tail_begin
            pieces[count].iov_len = self.tail_end - self.tail_begin
            count += 1
        return writev(self.fd, pieces, count)

    cdef int _sent(self, Py_ssize_t size) except -1:
        cdef Piece piece
        self.unwritten -= size
        while size and self.queue.count:
            piece = <Piece>fifo_peek(&self.queue, 0)
            if size < piece.size:
                piece.data += size
                piece.size -= size
                return 0
            size -= piece.size
            fifo_pop(&self.queue)
        self.tail_begin += size
        if self.unwritten == 0:
            self.tail_begin = self.tail_end = 0
            if self.tail is not None and self.tail.room > self.tail_kept:
                self.tail = None
        return 0

    cdef int _wait_writable(self) except -1:
        self.blocked = True
        self.loop.add_writer(self.fd, self.writable)
        return 0

    def writable(self):
        """The loop says that the kernel takes bytes again."""
        if self.closed:
            return
        self.blocked = False
        self.loop.remove_writer(self.fd)
        self.flush()

    def resume_writing(self):
        """A transport takes bytes again."""
        self.blocked = False
        self.flush()
        self._flushed()

    def pause_writing(self):
        """A transport has enough bytes."""
        self.blocked = True

    cdef int _hand_over(self) except -1:
        """Give a transport everything, or as much as it wants."""
        cdef Piece piece
        while self.queue.count and not self.blocked:
            piece = <Piece>fifo_pop(&self.queue)
            self.unwritten -= piece.size
            self.transport.write(PyBytes_FromStringAndSize(piece.data, piece.size))
        if not self.blocked and self.tail_end > self.tail_begin:
            piece_bytes = PyBytes_FromStringAndSize(self.tail.data + self.tail_begin,
                                                    self.tail_end - self.tail_begin)
            self.unwritten -= len(piece_bytes)
            self.tail, self.tail_begin, self.tail_end = None, 0, 0
            self.transport.write(piece_bytes)
        return 0

    def _finished(self):
        """Everything is written and nothing more is wanted."""
        if self.closed:            # the last write may have found that the peer is gone
            return
        if self.transport is not None:
            transport, self.transport = self.transport, None
            transport.close()
        elif self.fd >= 0 and not self.at_end:
            self._read_away()
        self.close()
        self.lost("closed")

    cdef int _read_away(self) except -1:
        """Forget what the peer has sent: unread bytes would make the system reset the connection,
        and the peer would lose our last words. Not into the scratch: another stream may be at work there."""
        cdef char[AWAY_SIZE] away
        cdef int reads = 0
        while reads < READS_AWAY and recv(self.fd, away, AWAY_SIZE, MSG_DONTWAIT) > 0:
            reads += 1
        return 0

    def connection_gone(self, str reason):
        """A transport has lost its connection."""
        self.transport = None
        self._fail(reason)

    # -- for tests and tools: a stream without a socket --

    def feed(self, bytes chunk not None):
        """Receive bytes as if the socket had brought them."""
        cdef Py_ssize_t done = 0, size
        cdef char *place
        while done < PyBytes_GET_SIZE(chunk) and not self.closed:
            place = self.reader.room(&size)
            size = min(size, PyBytes_GET_SIZE(chunk) - done)
            memcpy(place, PyBytes_AS_STRING(chunk) + done, size)
            self.reader.added(size)
            done += size
            self._work()

    def take(self):
        """The bytes that would be written next; they are gone afterwards."""
        cdef list parts = []
        cdef Piece piece
        while self.queue.count:
            piece = <Piece>fifo_pop(&self.queue)
            parts.append(PyBytes_FromStringAndSize(piece.data, piece.size))
        if self.tail_end > self.tail_begin:
            parts.append(PyBytes_FromStringAndSize(self.tail.data + self.tail_begin,
                                                   self.tail_end - self.tail_begin))
        self.tail, self.tail_begin, self.tail_end, self.unwritten = None, 0, 0, 0
        self._flushed()
        return b"".join(parts)

    @property
    def is_closed(self):
        """Whether the stream is closed."""
        return self.closed

    @property
    def is_reading(self):
        """Whether the stream takes bytes from its peer."""
        return self.reading

    @property
    def unsent(self):
        """Bytes that are not written yet."""
        return self.unwritten
