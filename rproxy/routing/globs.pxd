"""Globs: nothing for other modules to cimport. See globs.pyx."""
