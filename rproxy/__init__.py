"""rproxy makes a Redis Cluster look like one Redis.

The data moves one way, and so do the imports: proxy > engine > upstream > transport > topology >
routing > wire. A newcomer opens engine/dispatch.py first.
"""

__version__ = "0.1.0"
