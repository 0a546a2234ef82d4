"""A request -> its slot, by data about commands. Pure."""
