"""Makes the store hold the desired values: desired × current → plan → writes, journalled.

In: desired values and a scope. Out: a plan or a report. Imports naming, writing, reading and what
lies below them. `database` and `db_thread` know nothing of a sync: a mirror uses them as well.
"""
