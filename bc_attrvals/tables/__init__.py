"""File formats: CSV, JSON Lines and Parquet, in long and wide form.

In: paths and layouts. Out: rows with their places, or files. Imports core alone.
"""
