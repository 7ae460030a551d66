"""Reads values and ids from files of any format, a row at a time, and names the place of a bad one.

The entry to input files for the command line and the fleet. Memory does not grow with the file. A
bad row is yielded as `BadRow`, a bad file raises `FileError`. Lines count from 1, as editors count
them, and so do the rows of Parquet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from bc_attrvals.core.models import check_id
from bc_attrvals.tables.csv_format import csv_table
from bc_attrvals.tables.files import InputFile
from bc_attrvals.tables.json_lines import json_table
from bc_attrvals.tables.layout import CSV, ENCODING, JSON_LINES, PARQUET, Layout
from bc_attrvals.tables.lines import Lines
from bc_attrvals.tables.parquet import MAGIC, parquet_table
from bc_attrvals.tables.rows import BadRow, Cell, Entry, Table, entries, parse_id


def read_values(source: InputFile, layout: Layout) -> Iterator[Entry]:
    """Yield the values of a file in order, those that can't be sent as `BadRow`.

    A value is an `AttributeValueUpsert` where customer and attribute are given by id, else a
    `NamedValue`. Empty cells of the wide form are missing values; in long form they are empty
    strings. Raises `FileError` for a file that can't be read: wrong encoding, NUL bytes, columns
    missing or doubled or of wrong types, misplaced quotes, a line without end, damage, no content;
    for one that is changed while it is read; and if Parquet's extra is not installed.
    """
    return cast(Iterator[Entry], _read(source, layout, absent=False))


def read_cells(source: InputFile, layout: Layout) -> Iterator[Cell]:
    """Yield what `read_values` does, and the empty cells of the wide form as `Absent`.

    A field that an object of JSON Lines does not have is no empty cell.
    """
    return _read(source, layout, absent=True)


def resolved_layout(source: InputFile, layout: Layout) -> Layout:
    """Return the layout fitted to the columns of the file: its fields, or all its attributes.

    Raises `FileError` as `read_values` does.
    """
    return _table(source, layout).layout


def _read(source: InputFile, layout: Layout, *, absent: bool) -> Iterator[Cell]:
    yield from entries(_table(source, layout), absent=absent)
    source.check_unchanged()


def _table(source: InputFile, layout: Layout) -> Table:
    readers = {CSV: csv_table, JSON_LINES: json_table, PARQUET: parquet_table}
    return readers[layout.format](source, layout)


def read_ids(source: InputFile) -> Iterator[int | BadRow]:
    """Yield the ids of a file: one a line, or the column `id` of CSV (UTF-8) or Parquet.

    Raises `FileError` as `read_values` does.
    """
    layout = Layout(customer_column="id")
    if source.binary().read(len(MAGIC)) == MAGIC:
        table = parquet_table(source, layout)
    elif next(Lines(source, ENCODING), "").strip(" \r\n").isdigit():
        # Only ids: the first line is one.
        lines = Lines(source, ENCODING)
        rows = ((lines.number, (text.strip("\r\n"),)) for text in lines if text.strip())
        table = Table(layout, rows)
    else:
        table = csv_table(source, layout)
    for line, cells in table.rows:
        if isinstance(cells, BadRow):
            yield cells
            continue
        try:
            yield check_id(parse_id(cells[0]), "id")
        except ValueError as error:
            yield BadRow(line, "id", str(error), unit=table.unit)
    source.check_unchanged()
