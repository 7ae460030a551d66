"""Reads CSV (RFC 4180, and the dialects that can be told by the file) a row at a time.

Under `rows`, which makes values of the cells. Lines count from 1, as editors count them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from typing import Final

import attrs

from bc_attrvals.tables.files import InputFile
from bc_attrvals.tables.lines import Lines
from bc_attrvals.tables.rows import BadRow, Row
from bc_attrvals.tables.text import counted, cut

__all__ = ["csv_rows"]

#: By preference; any other sign of the header is tried after them.
_DELIMITERS: Final = ",;\t|"
_SAMPLE_LINES: Final = 500
_SAMPLE_CHARACTERS: Final = 131_072
#: What Excel puts, and heeds, above a header.
_EXCEL_HINT: Final = re.compile(r'"?sep=(?P<delimiter>[^"\r\n])"?[\r\n]*')


@attrs.frozen
class _Dialect:
    """How a file is written; `hint_lines` stand above its header."""

    delimiter: str = ","
    quote: str = '"'
    skip_space: bool = False
    hint_lines: int = 0

    def reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quotechar=self.quote,
            skipinitialspace=self.skip_space,
            strict=True,
        )


def csv_rows(source: InputFile, encoding: str, needed: Sequence[str]) -> Iterator[Row]:
    """Yield (line, the needed cells in their order) of a CSV file with a header.

    The delimiter, the quotes and whether spaces follow a delimiter are those by which the header
    has the needed columns. Raises `FileError` for what is no such file.
    """
    dialect = _sniffed(Lines(source, encoding), needed)
    lines = Lines(source, encoding)
    for _ in islice(lines, dialect.hint_lines):
        pass
    reader = dialect.reader(lines)
    width = 0
    pick: Callable[[list[str]], Sequence[str]] | None = None
    while True:
        line = lines.number + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise lines.error(f"not CSV: {_told(str(error), dialect)}", line) from None
        if row is None:
            break
        if not row:
            continue
        if pick is None:
            width = len(row)
            pick = _picker(lines, row, needed, line)
        elif len(row) != width:
            yield line, BadRow(line, None, f"{counted(len(row), 'field')}, the header has {width}")
        else:
            yield line, pick(row)
    if pick is None:
        raise lines.file_error("the file is empty")


def _picker(
    lines: Lines, header: list[str], needed: Sequence[str], line: int
) -> Callable[[list[str]], Sequence[str]]:
    columns = dict.fromkeys(needed)
    missing = [column for column in columns if column not in header]
    if missing:
        found = ", ".join(header)
        message = f"column missing: {', '.join(missing)}; the header has: {cut(found, 200)}"
        raise lines.error(message, line)
    doubled = [column for column in columns if header.count(column) > 1]
    if doubled:
        raise lines.error(f"column doubled: {', '.join(doubled)}", line)
    places = [header.index(column) for column in needed]
    if len(places) == 1:
        return lambda row: (row[places[0]],)
    return itemgetter(*places)


def _told(message: str, dialect: _Dialect) -> str:
    """Say in words of a table what the parser says in its own."""
    if "unexpected end of data" in message:
        return f"the quote {dialect.quote} is never closed"
    if "expected after" in message:
        return f"text behind a closing quote; inside of quotes, {dialect.quote} is doubled"
    if "field limit" in message:
        return (
            f"a cell of more than {csv.field_size_limit():,} characters; is a quote never closed?"
        )
    return message


def _sniffed(lines: Lines, needed: Sequence[str]) -> _Dialect:
    sample: list[str] = []
    characters = 0
    for text in islice(lines, _SAMPLE_LINES):
        sample.append(text)
        characters += len(text)
        if characters >= _SAMPLE_CHARACTERS:
            break
    hint = _EXCEL_HINT.fullmatch(sample[0]) if sample else None
    if hint is not None:
        del sample[0]
    head = next((text for text in sample if text.strip("\r\n")), "")
    delimiters = hint["delimiter"] if hint is not None else _delimiters(head, needed)
    # Double quotes in the sample are believed to quote, unless the header has single ones.
    quotes = '"' if "'" not in head and any('"' in text for text in sample) else "\"'"
    best = _Dialect(delimiters[0], hint_lines=hint is not None)
    best_score = (-1, False, -1)
    for quote in quotes:
        for skip_space in (False, True):
            for delimiter in delimiters:
                if skip_space and delimiter == " ":
                    continue
                dialect = _Dialect(delimiter, quote, skip_space, int(hint is not None))
                score = _score(dialect, sample, needed)
                if score > best_score:
                    best, best_score = dialect, score
                if score[:2] == (len(set(needed)), True):
                    return dialect
    return best


def _delimiters(head: str, needed: Sequence[str]) -> str:
    names = "".join(needed)
    others = dict.fromkeys(
        one for one in head if not one.isalnum() and one not in f"\"'_\r\n{_DELIMITERS}{names}"
    )
    return _DELIMITERS + "".join(others)


def _score(dialect: _Dialect, sample: list[str], needed: Sequence[str]) -> tuple[int, bool, int]:
    """Return how many needed columns the header has, whether all rows have as many, and how many.

    The count of columns matters only where a needed one is missing.
    """
    header: list[str] = []
    clean = True
    lines = iter(sample)
    try:
        for row in dialect.reader(lines):
            if not header:
                header = row
                if row and not set(needed).issubset(row):
                    break
            elif row and len(row) != len(header):
                clean = False
                break
    except csv.Error:
        # The sample may end inside of a quoted cell.
        clean = bool(header) and next(lines, None) is None and len(sample) > 1
    count = len(set(needed).intersection(header))
    return count, clean, 0 if count == len(set(needed)) else len(header)
