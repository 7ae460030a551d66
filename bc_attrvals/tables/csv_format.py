"""Reads and writes CSV (RFC 4180): comma, semicolon, tab, bar, or a delimiter that is named.

Between `lines` and `rows`. Lines count from 1, as editors count them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from operator import itemgetter
from typing import IO, Final

from bc_attrvals.tables.files import InputFile
from bc_attrvals.tables.layout import Layout
from bc_attrvals.tables.lines import Lines
from bc_attrvals.tables.rows import BadRow, Row, Written
from bc_attrvals.tables.text import counted, cut, moment

__all__ = ["CSVRows", "csv_rows"]

#: In the order of preference.
_DELIMITERS: Final = ",;\t|"
#: A quoted name may run over lines. An open quote does not make the whole file a header.
_MOST_HEADER_LINES: Final = 20
#: Excel writes this line above a header, and reads it.
_EXCEL_HINT: Final = re.compile(r'"?sep=(?P<delimiter>[^"\r\n])"?[\r\n]*')
# What makes a spreadsheet run a cell (OWASP, "CSV Injection"), with the full-width forms.
_FORMULA: Final = re.compile(r"[\t\r\n]|\s*[=+\-@＝＋－＠]")
_NUMBER: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def csv_rows(source: InputFile, layout: Layout) -> Iterator[Row]:
    """Yield (line, the needed cells in their order) of a CSV file with a header.

    Rows without any content are skipped. Blanks after a delimiter are no part of an unquoted cell.
    Raises `FileError` for a file that is no such table.
    """
    needed = layout.needed
    lines = Lines(source, layout.encoding)
    head = _first_lines(lines)
    delimiters = layout.delimiter or _DELIMITERS
    hint = _EXCEL_HINT.fullmatch(head[0]) if head else None
    if hint is not None:
        delimiters = layout.delimiter or hint["delimiter"]
        head = _first_lines(lines)
    if not head:
        raise lines.file_error("the file is empty")
    line = lines.number - len(head) + 1
    delimiter = max(delimiters, key=lambda one: _score(head, one, needed))
    reader = _reader(chain(head, lines), delimiter)
    header: list[str] | None = None
    pick = None
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise lines.error(f"not CSV: {_explained(str(error))}", line) from None
        if row is None:
            return
        if header is None or pick is None:
            header = [name.strip() for name in row]
            pick = _picker(lines, header, needed, line)
        elif not any(map(str.strip, row)):
            # Spreadsheets write rows of delimiters below a table.
            pass
        elif len(row) != len(header):
            width = len(header)
            yield line, BadRow(line, None, f"{counted(len(row), 'field')}, the header has {width}")
        else:
            yield line, pick(row)
        line = lines.number + 1


def _first_lines(lines: Lines) -> list[str]:
    """Read the lines of the first row that is not blank."""
    head: list[str] = []
    for text in lines:
        if head or text.strip():
            head.append(text)
            if sum(one.count('"') for one in head) % 2 == 0 or len(head) == _MOST_HEADER_LINES:
                break
    return head


def _reader(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    skips_blanks = delimiter != " "
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=skips_blanks, strict=True)


def _score(head: list[str], delimiter: str, needed: Sequence[str]) -> tuple[int, int]:
    """Return how many needed columns a delimiter gives the header, and how many columns."""
    try:
        names = [name.strip() for name in next(_reader(head, delimiter))]
    except csv.Error:
        return -1, 0
    return len(set(needed).intersection(names)), len(names)


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
        # A getter of one item returns no tuple.
        return lambda row: (row[places[0]],)
    return itemgetter(*places)


def _explained(message: str) -> str:
    """Return the parser's message in the words of a table."""
    if "unexpected end of data" in message:
        return 'the quote " is never closed'
    if "expected after" in message:
        return 'text behind a closing quote; inside of quotes, " is doubled'
    if "field limit" in message:
        most = csv.field_size_limit()
        return f"a cell of more than {most:,} characters; is a quote never closed?"
    return message


class CSVRows:
    """Rows of CSV below a header.

    A cell that begins with a blank is quoted: the reader drops blanks after a delimiter.
    """

    def __init__(
        self,
        text: IO[str],
        columns: Sequence[str],
        *,
        delimiter: str = ",",
        spreadsheet_safe: bool = False,
    ) -> None:
        self._text = text
        self._delimiter = delimiter
        special = re.escape(f'{delimiter}"\r\n')
        self._quoted = re.compile(rf"\s|[^{special}]*[{special}]")
        self._safe = spreadsheet_safe
        self.write([columns])

    def write(self, rows: Iterable[Sequence[Written]]) -> None:
        """Write rows; None is an empty cell."""
        join = self._delimiter.join
        self._text.writelines(join(map(self._cell, row)) + "\r\n" for row in rows)

    def _cell(self, cell: Written) -> str:
        if cell is None:
            return ""
        text = moment(cell) if isinstance(cell, datetime) else str(cell)
        if self._safe and isinstance(cell, str) and _FORMULA.match(text):
            text = text if _NUMBER.fullmatch(text) else "'" + text
        if self._quoted.match(text):
            return '"' + text.replace('"', '""') + '"'
        return text
