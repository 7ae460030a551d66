"""How rows of a file map to values: long form or wide form, in any format; and its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final, TypeVar

import attrs
import click

from bc_attrvals.core.models import check_id
from bc_attrvals.errors import InvalidInputError
from bc_attrvals.tables.files import STANDARD, FileError
from bc_attrvals.tables.text import one_line

__all__ = [
    "FIELDS",
    "Layout",
    "empty_option",
    "file_format",
    "format_option",
    "input_options",
    "layout",
    "wide_options",
]

F = TypeVar("F", bound=Callable[..., Any])

#: The columns of the long form.
FIELDS: Final = ("customer_id", "attribute_id", "value")
CSV: Final = "csv"
JSON_LINES: Final = "jsonl"
PARQUET: Final = "parquet"
#: What empty cells of the wide form come to.
SKIP: Final = "skip"
DELETE: Final = "delete"

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
    """What stands where in a file.

    In long form `columns` has the file's name of each of `FIELDS`. In wide form, one row a
    customer, `customer_column` holds the id, and `attributes` the attribute of each column.
    """

    format: str = CSV
    columns: Mapping[str, str] = attrs.field(factory=lambda: dict(zip(FIELDS, FIELDS, strict=True)))
    customer_column: str | None = None
    attributes: Mapping[str, int] = attrs.field(factory=dict)

    @property
    def wide(self) -> bool:
        """Whether a row holds all values of a customer."""
        return self.customer_column is not None

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


def layout(
    format: str,
    *,
    wide: bool,
    customer_column: str | None,
    attribute: Sequence[str],
    column: Sequence[str] = (),
) -> Layout:
    """Return the layout that options describe; raise `click.UsageError` where they clash."""
    if not wide:
        if customer_column is not None or attribute:
            raise click.UsageError("--customer-column and --attribute go with --wide")
        return Layout(format=format, columns=_columns(column))
    if column:
        raise click.UsageError("--column is for the long form; with --wide say --attribute")
    if not customer_column or not attribute:
        raise click.UsageError("--wide needs --customer-column and at least one --attribute")
    attributes = _attributes(attribute)
    if format != CSV and customer_column in attributes:
        raise click.UsageError(f"column {customer_column!r} can't be both id and value")
    return Layout(format=format, customer_column=customer_column, attributes=attributes)


def _columns(pairs: Sequence[str]) -> dict[str, str]:
    columns = dict(zip(FIELDS, FIELDS, strict=True))
    given: set[str] = set()
    for pair in pairs:
        field, equals, name = pair.partition("=")
        if not equals or not name or field not in columns:
            message = f"--column takes FIELD=NAME, FIELD one of {', '.join(FIELDS)}; not {pair!r}"
            raise click.UsageError(message)
        if field in given:
            raise click.UsageError(f"--column names {field} twice")
        given.add(field)
        columns[field] = name
    return columns


def _attributes(pairs: Sequence[str]) -> dict[str, int]:
    attributes: dict[str, int] = {}
    for pair in pairs:
        # A column's name may hold the sign.
        name, _, text = pair.rpartition("=")
        if not name or not (text.isascii() and text.isdigit() and len(text) <= 10):
            message = f"--attribute takes COLUMN=ID, ID the attribute's number; not {pair!r}"
            raise click.UsageError(message)
        try:
            number = check_id(int(text), "attribute_id")
        except InvalidInputError as error:
            raise click.UsageError(f"--attribute {pair!r}: {error}") from None
        if name in attributes or number in attributes.values():
            raise click.UsageError(f"--attribute {pair!r}: column or attribute is named twice")
        attributes[name] = number
    return attributes


def format_option(function: F) -> F:
    """Add `--format`."""
    return click.option(
        "--format",
        type=click.Choice([CSV, JSON_LINES, PARQUET]),
        help="Of the file; by default as its extension says, else csv.",
    )(function)


def wide_options(function: F) -> F:
    """Add `--wide --customer-column --attribute`."""
    for option in (
        click.option(
            "--attribute",
            multiple=True,
            metavar="COLUMN=ID",
            help="Wide form: the attribute a column holds. Repeatable.",
        ),
        click.option(
            "--customer-column", metavar="COLUMN", help="Wide form: the column of customer ids."
        ),
        click.option("--wide", is_flag=True, help="One row a customer, a column an attribute."),
    ):
        function = option(function)
    return function


def empty_option(function: F) -> F:
    """Add `--empty`."""
    return click.option(
        "--empty",
        type=click.Choice([SKIP, DELETE]),
        default=SKIP,
        show_default=True,
        help="Wide form: leave empty cells alone, or delete what is stored for them.",
    )(function)


def input_options(function: F) -> F:
    """Add what describes an input file; the command gets `format` … `encoding`."""
    function = click.option(
        "--encoding", default="utf-8-sig", show_default=True, help="Of the file."
    )(function)
    function = click.option(
        "--column",
        multiple=True,
        metavar="FIELD=NAME",
        help="Long form: the file's name for customer_id, attribute_id or value. Repeatable.",
    )(function)
    return format_option(wide_options(function))
