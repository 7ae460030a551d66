"""File formats: CSV, JSON Lines and Parquet, in long and wide form; and data frames.

In: paths, layouts, tables. Out: values and bad rows with their places, or files. Imports only the
core, and nothing of the command line.
"""
