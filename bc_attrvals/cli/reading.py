"""Reads values from CSV (RFC 4180) and JSON Lines, a row at a time, and says where one is bad.

Memory does not grow with the file. What spoils a row is yielded as `BadRow`, what spoils the whole
file is raised as `FileError`. Lines count from 1, as editors count them.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

import attrs

from bc_attrvals.cli.files import FileError, InputFile
from bc_attrvals.cli.layout import CSV, FIELDS, Layout
from bc_attrvals.cli.text import counted, cut, one_line
from bc_attrvals.core.models import AttributeValueUpsert, check_id
from bc_attrvals.errors import InvalidInputError

__all__ = [
    "BadRow",
    "Entry",
    "Lines",
    "csv_rows",
    "json_rows",
    "parse_id",
    "read_ids",
    "read_values",
]

#: A line longer than this is no line of a table.
_LONGEST_LINE_CHARACTERS: Final = 1_000_000
_DELIMITERS: Final = ",;\t|"
_LOCATE_BYTES: Final = 65_536


@attrs.frozen
class BadRow:
    """A row, or a cell of one, that can't be sent; `cells` is what stands there, by field."""

    line: int
    column: str | None
    message: str
    cells: Mapping[str, str] = attrs.field(factory=dict)

    def __str__(self) -> str:
        where = f"line {self.line:,}" + (f", column {self.column}" if self.column else "")
        return one_line(f"{where}: {self.message}", 300)


#: What reading gives for each value of the file.
Entry: TypeAlias = AttributeValueUpsert | BadRow
#: (line, cells or fields by column).
CSVRow: TypeAlias = tuple[int, dict[str, str] | BadRow]
JSONRow: TypeAlias = tuple[int, dict[str, object] | BadRow]

_JSON_NAMES: Final[Mapping[type, str]] = {
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    list: "an array",
    dict: "an object",
}


def read_values(source: InputFile, layout: Layout, encoding: str) -> Iterator[Entry]:
    """Yield the values of a file in order, those that can't be sent as `BadRow`.

    Empty cells of the wide form are missing values; in long form they are empty strings.
    Raises `FileError` for what is no such file: wrong encoding, NUL bytes, columns missing or
    doubled, quotes out of place, a line without end, nothing at all.
    """
    lines = Lines(source, encoding)
    if layout.format == CSV:
        rows = csv_rows(lines, layout.needed)
        yield from _wide(rows, layout) if layout.wide else _long(rows, layout)
    else:
        objects = json_rows(lines)
        yield from _wide_json(objects, layout) if layout.wide else _long_json(objects, layout)


class Lines:
    """The lines of a text file, bounded in length; `number` is that of the last one given."""

    def __init__(self, source: InputFile, encoding: str) -> None:
        self._source = source
        self._encoding = encoding
        self._text = source.text(encoding)
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = self._text.readline(_LONGEST_LINE_CHARACTERS + 1)
        except UnicodeError as error:
            raise self._encoding_error(error) from None
        if not line:
            raise StopIteration
        self.number += 1
        if "\0" in line:
            raise self.error("a NUL byte; this is no text file, or one of another --encoding")
        if len(line) > _LONGEST_LINE_CHARACTERS:
            raise self.error(f"longer than {_LONGEST_LINE_CHARACTERS:,} characters")
        return line

    def error(self, message: str, line: int | None = None) -> FileError:
        """Return the error that the file is bad at a line, the last one by default."""
        number = self.number if line is None else line
        return FileError(one_line(f"{self._source.name}: line {number:,}: {message}"))

    def file_error(self, message: str) -> FileError:
        """Return the error that the file is bad as a whole."""
        return FileError(one_line(f"{self._source.name}: {message}"))

    def _encoding_error(self, error: UnicodeError) -> FileError:
        name = "utf-8" if self._encoding == "utf-8-sig" else self._encoding
        if not isinstance(error, UnicodeDecodeError):
            return self.file_error(f"is not {name} ({error}); give its --encoding")
        # The text layer decodes far ahead of the line it gives.
        line = 1
        handle = self._source.binary()
        decoder = codecs.getincrementaldecoder(self._encoding)()
        while True:
            block = handle.read(_LOCATE_BYTES)
            try:
                line += decoder.decode(block, final=not block).count("\n")
            except UnicodeDecodeError as found:
                good = found.object[: found.start].decode(self._encoding, "replace")
                line += good.count("\n")
                break
            if not block:
                break
        byte = error.object[error.start]
        return self.error(f"is not {name} (byte 0x{byte:02x}); give its --encoding", line)


def csv_rows(lines: Lines, needed: list[str]) -> Iterator[CSVRow]:
    """Yield (line, the needed cells by column) of a CSV file with a header.

    The delimiter is the one of `, ; tab |` by which the header has the needed columns.
    """
    first = next(lines, None)
    if first is None:
        raise lines.file_error("the file is empty")
    ahead = iter([first])
    text = _chained(ahead, lines)
    reader = csv.reader(text, delimiter=_delimiter(first, needed), strict=True)
    header: list[str] | None = None
    places: list[tuple[str, int]] = []
    while True:
        line = 1 if header is None else lines.number + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise lines.error(f"not CSV: {error}", line) from None
        if row is None:
            break
        if not row:
            continue
        if header is None:
            header = row
            places = _places(lines, header, needed)
        elif len(row) != len(header):
            message = f"{counted(len(row), 'field')}, the header has {len(header)}"
            yield line, BadRow(line, None, message)
        else:
            yield line, {column: row[place] for column, place in places}
    if header is None:
        raise lines.file_error("the file is empty")


def _chained(ahead: Iterator[str], lines: Lines) -> Iterator[str]:
    yield from ahead
    yield from lines


def _delimiter(line: str, needed: list[str]) -> str:
    headers = {one: next(csv.reader([line], delimiter=one), []) for one in _DELIMITERS}
    return max(
        headers,
        key=lambda one: (len(set(needed).intersection(headers[one])), len(headers[one])),
    )


def _places(lines: Lines, header: list[str], needed: list[str]) -> list[tuple[str, int]]:
    missing = [column for column in needed if column not in header]
    if missing:
        found = ", ".join(header)
        message = f"column missing: {', '.join(missing)}; the header has: {cut(found, 200)}"
        raise lines.error(message)
    doubled = [column for column in needed if header.count(column) > 1]
    if doubled:
        raise lines.error(f"column doubled: {', '.join(doubled)}")
    return [(column, header.index(column)) for column in needed]


def json_rows(lines: Lines) -> Iterator[JSONRow]:
    """Yield (line, object) of a JSON Lines file; blank lines are none."""
    some = False
    for text in lines:
        if not text.strip():
            continue
        some = True
        line = lines.number
        try:
            row = json.loads(text, object_pairs_hook=_object)
        except json.JSONDecodeError as error:
            yield line, BadRow(line, None, f"not JSON: {error.msg} at character {error.colno}")
        except (ValueError, RecursionError) as error:
            yield line, BadRow(line, None, f"not usable JSON: {error}")
        else:
            if isinstance(row, dict):
                yield line, row
            else:
                yield line, BadRow(line, None, "not a JSON object")
    if not some:
        raise lines.file_error("the file is empty")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in names if names.count(name) > 1)
        message = f"field {cut(doubled)} doubled"
        raise ValueError(message)
    return row


def parse_id(text: str) -> int:
    """Return an id of a CSV cell; raise ValueError with the reason."""
    digits = text.strip(" ")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 15):
        message = "empty, must be an integer" if not digits else f"not an integer: {cut(text)}"
        raise ValueError(message)
    return int(digits)


def read_ids(source: InputFile) -> Iterator[int | BadRow]:
    """Yield the ids of a UTF-8 file: one a line, or the column `id` of a CSV file with a header."""
    lines = Lines(source, "utf-8-sig")
    first = next(lines, None)
    if first is None:
        raise lines.file_error("the file is empty")
    cells: Iterator[tuple[int, str | BadRow]]
    if first.strip(" \r\n").isdigit():
        plain = _chained(iter([first]), lines)
        cells = ((lines.number, text.strip("\r\n")) for text in plain if text.strip())
    else:
        rows = csv_rows(Lines(source, "utf-8-sig"), ["id"])
        cells = ((line, row if isinstance(row, BadRow) else row["id"]) for line, row in rows)
    for line, cell in cells:
        if isinstance(cell, BadRow):
            yield cell
            continue
        try:
            yield check_id(parse_id(cell), "id")
        except ValueError as error:
            yield BadRow(line, "id", str(error))


def _build(
    line: int, customer: object, attribute: object, value: object, columns: Mapping[str, str]
) -> Entry:
    """Return the value to send, or what is wrong with it, by the columns it stands in."""
    field = "customer_id"
    try:
        customer_id = parse_id(customer) if isinstance(customer, str) else customer
        field = "attribute_id"
        attribute_id = parse_id(attribute) if isinstance(attribute, str) else attribute
        # What is no id or no string by its type is found there.
        return AttributeValueUpsert(customer_id, attribute_id, value)  # type: ignore[arg-type]
    except InvalidInputError as error:
        field, message = error.field or field, str(error)
    except ValueError as error:
        message = str(error)
    cells = dict(zip(FIELDS, (_cell(customer), _cell(attribute), _cell(value)), strict=True))
    return BadRow(line, columns.get(field, field), message, cells)


def _cell(raw: object) -> str:
    if isinstance(raw, str):
        # A lone surrogate can't be written again.
        return raw.encode("utf-8", "replace").decode()
    return "" if raw is None else one_line(repr(raw), 300)


def _long(rows: Iterator[CSVRow], layout: Layout) -> Iterator[Entry]:
    columns = layout.columns
    customer, attribute, value = (columns[field] for field in FIELDS)
    for line, row in rows:
        if isinstance(row, BadRow):
            yield row
        else:
            yield _build(line, row[customer], row[attribute], row[value], columns)


def _wide(rows: Iterator[CSVRow], layout: Layout) -> Iterator[Entry]:
    for line, row in rows:
        yield from [row] if isinstance(row, BadRow) else _wide_values(line, row, layout)


def _long_json(rows: Iterator[JSONRow], layout: Layout) -> Iterator[Entry]:
    columns = layout.columns
    customer, attribute, value = (columns[field] for field in FIELDS)
    for line, row in rows:
        if isinstance(row, BadRow):
            yield row
            continue
        bad = (
            _wrong_type(line, row, customer, int)
            or _wrong_type(line, row, attribute, int)
            or _wrong_type(line, row, value, str)
        )
        if bad is None:
            yield _build(line, row[customer], row[attribute], row[value], columns)
        else:
            cells = {field: _cell(row.get(name)) for field, name in columns.items()}
            yield attrs.evolve(bad, cells=cells)


def _wide_json(rows: Iterator[JSONRow], layout: Layout) -> Iterator[Entry]:
    assert layout.customer_column is not None
    for line, row in rows:
        if isinstance(row, BadRow):
            yield row
        elif bad := _wrong_type(line, row, layout.customer_column, int):
            yield bad
        else:
            yield from _wide_values(line, row, layout)


def _wide_values(line: int, row: Mapping[str, object], layout: Layout) -> Iterator[Entry]:
    """Yield the values of one customer; empty cells are missing values."""
    customer_column = layout.customer_column
    assert customer_column is not None
    customer = row[customer_column]
    some = False
    for column, attribute_id in layout.attributes.items():
        value = row.get(column)
        if value is None or value == "":
            continue
        some = True
        names = {"customer_id": customer_column, "value": column}
        bad = _wrong_type(line, row, column, str)
        if bad is None:
            yield _build(line, customer, attribute_id, value, names)
        else:
            cells = (_cell(customer), str(attribute_id), _cell(value))
            yield attrs.evolve(bad, cells=dict(zip(FIELDS, cells, strict=True)))
    if not some:
        # Nothing to send, and yet the id must be one: a shifted column is found so.
        entry = _build(line, customer, 1, "", {"customer_id": customer_column})
        if isinstance(entry, BadRow):
            yield attrs.evolve(entry, cells={})


def _wrong_type(line: int, row: Mapping[str, object], column: str, kind: type) -> BadRow | None:
    """Return what is wrong with the JSON type of a field, if anything is."""
    if column not in row:
        return BadRow(line, column, "missing")
    found = row[column]
    # bool is an int in Python, but not in JSON.
    if isinstance(found, kind) and not isinstance(found, bool):
        return None
    name = _JSON_NAMES[type(found)]
    if kind is int:
        return BadRow(line, column, f"must be an integer, not {name}")
    hint = '; values are strings, as in "12.50"' if isinstance(found, int | float) else ""
    return BadRow(line, column, f"must be a string, not {name}{hint}")
