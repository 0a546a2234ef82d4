"""Node -> bytes -> node, and the answer back. `cluster.Cluster` is the only door."""
