"""Bulk writes: any input of upserts or ids becomes calls, and one outcome per item.

In: an iterable, sync or async (`sources`). Out: outcomes and reports. `batching`, `bad_items` and
`confirming` decide without I/O; `upsert_job`, `batch_sender` and `delete_job` make the calls.
Imports reading (for read-back), scheduling and what these may import.
"""
