"""Placeholder: replaced by the finished errors."""


class RproxyError(Exception):
    """."""


class ProtocolBroken(RproxyError):
    """."""
MAY_HAVE_RUN = b"-ERR upstream connection lost; the command may have been executed\r\n"
def late_reply(x): return b"-ERR late\r\n"
