"""Makes the store hold the desired values: desired × current → plan → writes, journalled.

In: desired values and a scope. Out: a plan or a report. Imports naming, writing, reading and what
lies below them. A mirror uses `database` and `database_thread` too; these know no sync.
"""
