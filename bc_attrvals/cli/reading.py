"""Reads values and ids from files of any format, a row at a time, and says where one is bad.

The one entry of commands to input files. Memory does not grow with the file. What spoils a row is
yielded as `BadRow`, what spoils the whole file is raised as `FileError`. Lines count from 1, as
editors count them.
"""

from __future__ import annotations

from collections.abc import Iterator

from bc_attrvals.cli.csv_rows import csv_rows
from bc_attrvals.cli.files import InputFile
from bc_attrvals.cli.json_rows import json_rows
from bc_attrvals.cli.layout import CSV, Layout
from bc_attrvals.cli.lines import Lines
from bc_attrvals.cli.rows import BadRow, Entry, Row, Rules, long_entries, parse_id, wide_entries
from bc_attrvals.core.models import check_id

__all__ = ["BadRow", "Entry", "parse_id", "read_ids", "read_values"]


def read_values(source: InputFile, layout: Layout, encoding: str) -> Iterator[Entry]:
    """Yield the values of a file in order, those that can't be sent as `BadRow`.

    Empty cells of the wide form are missing values; in long form they are empty strings.
    Raises `FileError` for what is no such file: wrong encoding, NUL bytes, columns missing or
    doubled, quotes out of place, a line without end, nothing at all.
    """
    rows: Iterator[Row]
    if layout.format == CSV:
        rules = Rules()
        rows = csv_rows(source, encoding, layout.needed)
    else:
        rules = Rules(text_ids=False)
        rows = json_rows(source, encoding, layout.needed)
    yield from (wide_entries if layout.wide else long_entries)(rows, layout, rules)


def read_ids(source: InputFile) -> Iterator[int | BadRow]:
    """Yield the ids of a UTF-8 file: one a line, or the column `id` of a CSV file with a header."""
    lines = Lines(source, "utf-8-sig")
    first = next(lines, None)
    if first is None:
        raise lines.file_error("the file is empty")
    if first.strip(" \r\n").isdigit():
        lines = Lines(source, "utf-8-sig")
        rows: Iterator[Row] = (
            (lines.number, (text.strip("\r\n"),)) for text in lines if text.strip()
        )
    else:
        rows = csv_rows(source, "utf-8-sig", ["id"])
    for line, cells in rows:
        if isinstance(cells, BadRow):
            yield cells
            continue
        try:
            yield check_id(parse_id(str(cells[0])), "id")
        except ValueError as error:
            yield BadRow(line, "id", str(error))
