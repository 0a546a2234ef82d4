"""Slot -> node: the map, whom to believe about it, when to ask again."""
