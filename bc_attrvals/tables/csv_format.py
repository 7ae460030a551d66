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

from bc_attrvals.core.filters import format_moment
from bc_attrvals.tables.error_text import counted
from bc_attrvals.tables.files import InputFile
from bc_attrvals.tables.layout import Layout
from bc_attrvals.tables.lines import Lines
from bc_attrvals.tables.rows import BadRow, Row, Table, Written

#: In the order of preference.
_DELIMITERS: Final = ",;\t|"
#: A quoted name may run over lines. An open quote does not make the whole file a header.
_MOST_HEADER_LINES: Final = 20
#: Excel writes this line above a header, and reads it.
_EXCEL_HINT: Final = re.compile(r'"?sep=(?P<delimiter>[^"\r\n])"?[\r\n]*')
# What makes a spreadsheet run a cell (OWASP, "CSV Injection"), with the full-width forms.
_FORMULA: Final = re.compile(r"[\t\r\n]|\s*[=+\-@＝＋－＠]")
_NUMBER: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def csv_table(source: InputFile, layout: Layout) -> Table:
    """Return the rows of a CSV file with a header.

    Rows without any content are skipped. Blanks after a delimiter are dropped, except in quotes,
    and so are blanks around a column's name. Raises `FileError` for a file that is no such table,
    at once or from the rows.
    """
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
    delimiter = max(delimiters, key=lambda one: _score(head, one, layout))
    reader = _reader(chain(head, lines), delimiter)
    try:
        names = [name.strip() for name in next(reader)]
    except csv.Error as error:
        raise lines.error(f"not CSV: {_explained(str(error))}", line) from None
    fitted = layout.resolved(names, f"{source.name}: {lines.place(line)}")
    return Table(fitted, _rows(reader, lines, names, fitted.needed))


def _rows(
    reader: Iterator[list[str]], lines: Lines, names: list[str], needed: Sequence[str]
) -> Iterator[Row]:
    width = len(names)
    places = [names.index(column) for column in needed]
    # A getter of one item returns no tuple.
    pick: Callable[[list[str]], Sequence[str]]
    pick = itemgetter(*places) if len(places) > 1 else lambda row: (row[places[0]],)
    while True:
        line = lines.number + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise lines.error(f"not CSV: {_explained(str(error))}", line) from None
        if row is None:
            return
        if not row or not (row[0].strip() or any(map(str.strip, row))):
            # Spreadsheets write rows of delimiters below a table.
            continue
        if len(row) != width:
            yield line, BadRow(line, None, f"{counted(len(row), 'field')}, the header has {width}")
        else:
            yield line, pick(row)


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


def _score(head: list[str], delimiter: str, layout: Layout) -> tuple[int, int]:
    """Return how many needed columns a delimiter gives the header, and how many columns."""
    try:
        names = [name.strip() for name in next(_reader(head, delimiter))]
    except csv.Error:
        # A quote out of place, which the reader of the whole file reports.
        names = head[0].strip().split(delimiter)
    return len(set(layout.fitted(names).needed).intersection(names)), len(names)


def _explained(message: str) -> str:
    """Return the parser's message in terms of a table."""
    if "unexpected end of data" in message:
        return 'the quote " is never closed'
    if "expected after" in message:
        return 'text behind a closing quote; inside of quotes, " is doubled'
    if "field limit" in message:
        most = csv.field_size_limit()
        return f"a cell of more than {most:,} characters; is a quote never closed?"
    return message


class CSVRows:
    """Rows of CSV below a header, which is written with the first rows, or by `finish`.

    So a job that fails before it has a row leaves standard output empty. A cell that begins with a
    blank is quoted: the reader drops blanks after a delimiter.
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
        self._header: Sequence[str] | None = columns

    def finish(self) -> None:
        """Write the header if there were no rows."""
        self.write(())

    def write(self, rows: Iterable[Sequence[Written]]) -> None:
        """Write rows; None is an empty cell."""
        join = self._delimiter.join
        if self._header is not None:
            header, self._header = self._header, None
            self._text.write(join(map(self._cell, header)) + "\r\n")
        self._text.writelines(join(map(self._cell, row)) + "\r\n" for row in rows)

    def _cell(self, cell: Written) -> str:
        if type(cell) is int:
            return str(cell)
        if cell is None:
            return ""
        text = format_moment(cell) if isinstance(cell, datetime) else str(cell)
        if self._safe and isinstance(cell, str) and _FORMULA.match(text):
            text = text if _NUMBER.fullmatch(text) else "'" + text
        if self._quoted.match(text):
            return '"' + text.replace('"', '""') + '"'
        return text
