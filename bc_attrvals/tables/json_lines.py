"""Reads and writes JSON Lines: one JSON object a line. Between `lines` and `rows`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import chain, islice
from typing import IO, Final

from bc_attrvals.core.filters import format_moment
from bc_attrvals.tables.error_text import cut
from bc_attrvals.tables.files import InputFile
from bc_attrvals.tables.layout import Layout
from bc_attrvals.tables.lines import Lines
from bc_attrvals.tables.rows import MISSING, BadRow, Table, Written

#: After this many first lines that are no objects, the file is of another kind.
_MOST_FIRST_BAD: Final = 20


def json_table(source: InputFile, layout: Layout) -> Table:
    """Return the rows of a JSON Lines file; blank lines are none.

    A number keeps its digits as they are written. A field that an object does not have is
    `MISSING`. The first object shows whether ids or names are given. Raises `FileError` for a file
    that is no such table, and for `attributes_by_header`, since there is no header.
    """
    lines = Lines(source, layout.encoding)
    if layout.attributes_by_header:
        raise lines.file_error("JSON Lines have no header; name the attributes")
    parsed = ((lines.number, _parsed(text, lines.number)) for text in lines if text.strip())
    first: list[tuple[int, dict[str, object] | BadRow]] = []
    for place, row in islice(parsed, _MOST_FIRST_BAD):
        first.append((place, row))
        if isinstance(row, dict):
            layout = layout.fitted(list(row))
            break
    else:
        if not first:
            raise lines.file_error("the file is empty")
        if len(first) > 1:
            place, bad = first[0]
            assert isinstance(bad, BadRow)
            message = f"not JSON Lines, which has a JSON object a line ({bad.message})"
            raise lines.error(message, place)
    needed = layout.needed
    rows = (
        (place, row if isinstance(row, BadRow) else [row.get(name, MISSING) for name in needed])
        for place, row in chain(first, parsed)
    )
    return Table(layout, rows)


def _parsed(text: str, line: int) -> dict[str, object] | BadRow:
    try:
        row = json.loads(
            text,
            object_pairs_hook=_object,
            # Text, which loses nothing.
            parse_int=str,
            parse_float=str,
            parse_constant=_no_number,
        )
    except json.JSONDecodeError as error:
        return BadRow(line, None, f"not JSON: {error.msg} at character {error.colno}")
    except (ValueError, RecursionError) as error:
        return BadRow(line, None, f"not usable JSON: {error}")
    return row if isinstance(row, dict) else BadRow(line, None, "not a JSON object")


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is no number")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = {name.strip(): cell for name, cell in pairs}
    if len(row) != len(pairs):
        names = [name.strip() for name, _ in pairs]
        doubled = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"field {cut(doubled)} doubled")
    return row


class JSONRows:
    """Rows of JSON Lines."""

    def __init__(self, text: IO[str], columns: Sequence[str]) -> None:
        self._text = text
        self._columns = tuple(columns)

    def write(self, rows: Iterable[Sequence[Written]]) -> None:
        """Write rows; None is a field left out."""
        for row in rows:
            fields = {
                name: format_moment(cell) if isinstance(cell, datetime) else cell
                for name, cell in zip(self._columns, row, strict=True)
                if cell is not None
            }
            self._text.write(json.dumps(fields, ensure_ascii=False) + "\n")
