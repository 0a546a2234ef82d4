"""One socket on the event loop: bytes in as they come, bytes out once a turn."""
