"""How rows of a file map to values: long form or wide form, in any format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Final

import attrs

from bc_attrvals.tables.files import STANDARD, FileError
from bc_attrvals.tables.text import one_line

__all__ = ["CSV", "ENCODING", "FIELDS", "JSON_LINES", "PARQUET", "Layout", "file_format"]

#: The columns of the long form.
FIELDS: Final = ("customer_id", "attribute_id", "value")
CSV: Final = "csv"
JSON_LINES: Final = "jsonl"
PARQUET: Final = "parquet"
#: UTF-8 with a byte order mark or without.
ENCODING: Final = "utf-8-sig"

_BY_EXTENSION: Final = {
    ".csv": CSV,
    ".tsv": CSV,
    ".tab": CSV,
    ".txt": CSV,
    ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".parquet": PARQUET,
    ".pq": PARQUET,
}
_OTHER_KINDS: Final = {
    ".gz": "is compressed; unpack it first",
    ".bz2": "is compressed; unpack it first",
    ".xz": "is compressed; unpack it first",
    ".zst": "is compressed; unpack it first",
    ".zip": "is an archive; unpack it first",
    ".xlsx": "is an Excel workbook; save it as CSV (UTF-8)",
    ".xls": "is an Excel workbook; save it as CSV (UTF-8)",
    ".ods": "is a spreadsheet; save it as CSV (UTF-8)",
}


@attrs.frozen(kw_only=True)
class Layout:
    """What stands where in a file, and how text is written.

    `encoding` is that of CSV and JSON Lines. `delimiter` separates the cells of CSV; None means
    that the header shows it. In long form `columns` has the file's name of each of
    `FIELDS`. In wide form, one row a customer, `customer_column` holds the id, and `attributes`
    the attribute of each column.
    """

    format: str = CSV
    encoding: str = ENCODING
    delimiter: str | None = None
    columns: Mapping[str, str] = attrs.field(factory=lambda: dict(zip(FIELDS, FIELDS, strict=True)))
    customer_column: str | None = None
    attributes: Mapping[str, int] = attrs.field(factory=dict)

    @property
    def wide(self) -> bool:
        """Whether a row holds all values of a customer."""
        return self.customer_column is not None

    def in_long_form(self) -> Layout:
        """Return the long form of the same file format, with its own names of columns."""
        return Layout(format=self.format, encoding=self.encoding, delimiter=self.delimiter)

    @property
    def needed(self) -> tuple[str, ...]:
        """The column of each cell that is read from a row: of `FIELDS`, or the id's and the rest.

        One may stand for several cells.
        """
        if self.customer_column is not None:
            return (self.customer_column, *self.attributes)
        return tuple(self.columns[field] for field in FIELDS)


def file_format(name: str, given: str | None, default: str = CSV) -> str:
    """Return `csv`, `jsonl` or `parquet`: as given, or by the extension, or the default.

    Raises `FileError` for an extension of none of them.
    """
    if given is not None:
        return given
    if name == STANDARD:
        return default
    path = PurePath(name)
    found = _BY_EXTENSION.get(path.suffix.lower())
    if found is not None:
        return found
    if not path.suffix or str(path).startswith(("/dev/", "/proc/")):
        return default
    problem = _OTHER_KINDS.get(
        path.suffix.lower(),
        f"unknown extension {path.suffix!r}; say --format csv, jsonl or parquet",
    )
    raise FileError(one_line(f"{name}: {problem}"))
