"""Makes the store hold the desired values: desired × current → plan → writes, journalled.

In: desired values and a scope. Out: a plan or a report. Imports writing, reading and what lies
below them.
"""
