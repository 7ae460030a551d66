"""Reads listings page by page: in order, in any order, or exactly once under other writers.

In: a filter. Out: typed rows. Imports scheduling and what that may import.
"""
