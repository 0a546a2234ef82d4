"""Bytes <-> frames. Pure: nothing here touches a socket."""
