"""Reads values and ids from files of any format, a row at a time, and says where one is bad.

The one entry of commands to input files. Memory does not grow with the file. What spoils a row is
yielded as `BadRow`, what spoils the whole file is raised as `FileError`. Lines count from 1, as
editors count them; so do the rows of Parquet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, cast

from bc_attrvals.core.models import check_id
from bc_attrvals.tables.csv_format import csv_rows
from bc_attrvals.tables.files import InputFile
from bc_attrvals.tables.json_lines import json_rows
from bc_attrvals.tables.layout import CSV, PARQUET, Layout
from bc_attrvals.tables.lines import Lines
from bc_attrvals.tables.parquet import MAGIC, UNIT, parquet_rows
from bc_attrvals.tables.rows import (
    Absent,
    BadRow,
    Cell,
    Entry,
    Row,
    Rules,
    long_entries,
    parse_id,
    wide_entries,
)

__all__ = ["Absent", "BadRow", "Cell", "Entry", "parse_id", "read_cells", "read_ids", "read_values"]

_IDS_ENCODING: Final = "utf-8-sig"


def read_values(source: InputFile, layout: Layout) -> Iterator[Entry]:
    """Yield the values of a file in order, those that can't be sent as `BadRow`.

    Empty cells of the wide form are missing values; in long form they are empty strings.
    Raises `FileError` for what is no such file: wrong encoding, NUL bytes, columns missing or
    doubled or of wrong types, quotes out of place, a line without end, damage, nothing at all; and
    where Parquet's extra is not installed. `encoding` is that of text formats.
    """
    return cast(Iterator[Entry], _cells(source, layout, absent=False))


def read_cells(source: InputFile, layout: Layout) -> Iterator[Cell]:
    """Yield what `read_values` does, and the empty cells of the wide form as `Absent`.

    A field that an object of JSON Lines does not have is no empty cell.
    """
    return _cells(source, layout, absent=True)


def _cells(source: InputFile, layout: Layout, *, absent: bool) -> Iterator[Cell]:
    rows: Iterator[Row]
    rules = Rules()
    if layout.format == CSV:
        rows = csv_rows(source, layout)
    elif layout.format == PARQUET:
        rules = Rules(unit=UNIT)
        rows = parquet_rows(source, layout)
    else:
        rules = Rules(text_ids=False)
        rows = json_rows(source, layout.encoding, layout.needed)
    if layout.wide:
        yield from wide_entries(rows, layout, rules, absent=absent)
    else:
        yield from long_entries(rows, layout, rules)
    source.check_unchanged()


def read_ids(source: InputFile) -> Iterator[int | BadRow]:
    """Yield the ids of a file: one a line, or the column `id` of CSV (UTF-8) or Parquet.

    Raises `FileError` as `read_values` does.
    """
    unit = "line"
    if source.binary().read(len(MAGIC)) == MAGIC:
        unit = UNIT
        rows: Iterator[Row] = parquet_rows(source, Layout(customer_column="id"))
    elif _is_number(Lines(source, _IDS_ENCODING)):
        lines = Lines(source, _IDS_ENCODING)
        rows = ((lines.number, (text.strip("\r\n"),)) for text in lines if text.strip())
    else:
        rows = csv_rows(source, Layout(customer_column="id"))
    for line, cells in rows:
        if isinstance(cells, BadRow):
            yield cells
            continue
        cell = cells[0]
        try:
            yield check_id(parse_id(cell) if isinstance(cell, str) else cell, "id")
        except ValueError as error:
            yield BadRow(line, "id", str(error), unit=unit)
    source.check_unchanged()


def _is_number(lines: Lines) -> bool:
    """Whether a file has ids alone: the first line is one."""
    return next(lines, "").strip(" \r\n").isdigit()
