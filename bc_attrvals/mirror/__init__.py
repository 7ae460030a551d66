"""Keeps a local copy of a store's values exact at the cost of what changed.

In: a file and a store. Out: the copy's rows, and the changes since the last refresh. Imports sync,
reading and what lies below them.
"""
