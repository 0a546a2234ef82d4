"""The server: listeners, clients' sockets, processes, signals."""
