"""Keeps a local copy of a store's values exact at the cost of what changed.

In: a file and a store. Out: the copy's rows, and the changes since the last refresh. Imports sync,
reading and what lies below them.

`mirror` is the public face, and `refresh` one refresh: `modified_since` lists what is new or
changed (`created_parts` cuts it), `reconcile` finds what is gone, and `full_listing` lists
everything. `ingest` takes what they read into the `replica`, the SQLite tables.
"""
