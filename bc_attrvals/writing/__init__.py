"""Bulk writes: any input of upserts or ids becomes calls, and one outcome per item.

In: an iterable, sync or async. Out: outcomes and reports. Imports reading (for read-back),
scheduling and what lies below them.
"""
