"""Reads and writes JSON Lines: one JSON object a line. Between `lines` and `rows`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import IO, Final

from bc_attrvals.tables.files import InputFile
from bc_attrvals.tables.lines import Lines
from bc_attrvals.tables.rows import MISSING, BadRow, Row, Written
from bc_attrvals.tables.text import cut, moment

__all__ = ["JSONRows", "json_rows"]

#: So many lines from the start that are no objects: this is another kind of file.
_MOST_FIRST_BAD: Final = 20


def json_rows(source: InputFile, encoding: str, needed: Sequence[str]) -> Iterator[Row]:
    """Yield (line, the needed fields in their order) of a JSON Lines file; blank lines are none.

    A field that is not there is `MISSING`. Raises `FileError` for what is no such file.
    """
    lines = Lines(source, encoding)
    # Bad rows before the first good one.
    first: list[BadRow] | None = []
    for text in lines:
        if not text.strip():
            continue
        row = _parsed(text, lines.number)
        if isinstance(row, BadRow):
            if first is None:
                yield lines.number, row
            else:
                first.append(row)
                if len(first) == _MOST_FIRST_BAD:
                    break
            continue
        if first is not None:
            yield from ((bad.line, bad) for bad in first)
            first = None
        yield lines.number, [row.get(name, MISSING) for name in needed]
    if first is None:
        return
    if not first:
        raise lines.file_error("the file is empty")
    if len(first) > 1:
        message = f"not JSON Lines, which has a JSON object a line ({first[0].message})"
        raise lines.error(message, first[0].line)
    yield first[0].line, first[0]


def _parsed(text: str, line: int) -> dict[str, object] | BadRow:
    try:
        row = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        return BadRow(line, None, f"not JSON: {error.msg} at character {error.colno}")
    except (ValueError, RecursionError) as error:
        return BadRow(line, None, f"not usable JSON: {error}")
    return row if isinstance(row, dict) else BadRow(line, None, "not a JSON object")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in names if names.count(name) > 1)
        message = f"field {cut(doubled)} doubled"
        raise ValueError(message)
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
                name: moment(cell) if isinstance(cell, datetime) else cell
                for name, cell in zip(self._columns, row, strict=True)
                if cell is not None
            }
            self._text.write(json.dumps(fields, ensure_ascii=False) + "\n")
