"""ClientStream: a client's socket. See connection.pyx."""
from rproxy.engine.session cimport Session
from rproxy.transport.stream cimport Stream


cdef class ClientStream(Stream):
    cdef readonly Session session  # what the client says goes there
