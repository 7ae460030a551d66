"""The options that describe a file, and the `Layout` they come to."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import attrs
import click

from bc_attrvals.core.models import check_id
from bc_attrvals.errors import InvalidInputError
from bc_attrvals.tables.layout import (
    CSV,
    ENCODING,
    FIELDS,
    JSON_LINES,
    PARQUET,
    Layout,
    file_format,
)

__all__ = [
    "DELETE",
    "FileOptions",
    "bundled",
    "empty_option",
    "input_options",
    "output_file_options",
]

F = TypeVar("F", bound=Callable[..., Any])

#: What empty cells of the wide form mean.
SKIP: Final = "skip"
DELETE: Final = "delete"


@attrs.frozen(kw_only=True)
class FileOptions:
    """The options of one file, as they were given."""

    format: str | None
    wide: bool
    customer_column: str | None
    attribute: Sequence[str]
    column: Sequence[str] = ()
    encoding: str = ENCODING
    delimiter: str | None = None

    def layout(self, file: str) -> Layout:
        """Return the layout of a file of this name.

        Raises `click.UsageError` for options that do not go together, `FileError` for a name whose
        extension is no known format.
        """
        form = file_format(file, self.format)
        if self.delimiter is not None and form != CSV:
            raise click.UsageError("--delimiter is for CSV")
        if not self.wide:
            if self.customer_column is not None or self.attribute:
                raise click.UsageError("--customer-column and --attribute go with --wide")
            columns = _columns(self.column)
            return Layout(
                format=form, encoding=self.encoding, delimiter=self.delimiter, columns=columns
            )
        if self.column:
            raise click.UsageError("--column is for the long form; with --wide say --attribute")
        if not self.customer_column or not self.attribute:
            raise click.UsageError("--wide needs --customer-column and at least one --attribute")
        attributes = _attributes(self.attribute)
        if form != CSV and self.customer_column in attributes:
            message = f"column {self.customer_column!r} can't be both id and value"
            raise click.UsageError(message)
        return Layout(
            format=form,
            encoding=self.encoding,
            delimiter=self.delimiter,
            customer_column=self.customer_column,
            attributes=attributes,
        )


def _columns(pairs: Sequence[str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for pair in pairs:
        field, equals, name = pair.partition("=")
        if not equals or not name or field not in FIELDS:
            message = f"--column takes FIELD=NAME, FIELD one of {', '.join(FIELDS)}; not {pair!r}"
            raise click.UsageError(message)
        if field in columns:
            raise click.UsageError(f"--column names {field} twice")
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


_FORMAT: Final = click.option(
    "--format",
    type=click.Choice([CSV, JSON_LINES, PARQUET]),
    help="Of the file; by default as its extension says, else csv.",
)
_WIDE: Final = (
    click.option("--wide", is_flag=True, help="One row a customer, a column an attribute."),
    click.option(
        "--customer-column", metavar="COLUMN", help="Wide form: the column of customer ids."
    ),
    click.option(
        "--attribute",
        multiple=True,
        metavar="COLUMN=ID",
        help="Wide form: the attribute a column holds. Repeatable.",
    ),
)
_INPUT: Final = (
    click.option(
        "--column",
        multiple=True,
        metavar="FIELD=NAME",
        help="Long form: the file's name for customer_id, attribute_id or value. Repeatable.",
    ),
    click.option("--encoding", default=ENCODING, show_default=True, help="Of a text file."),
    click.option(
        "--delimiter",
        metavar="CHARACTER",
        callback=lambda _, __, given: _delimiter(given),
        help="CSV: what separates the cells, or `tab`; by default comma, semicolon, tab or bar, as"
        " the header shows.",
    ),
)


def _delimiter(given: str | None) -> str | None:
    if given is None:
        return None
    delimiter = {"tab": "\t", r"\t": "\t"}.get(given.lower(), given)
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise click.BadParameter("must be one character, and no quote or line break")
    return delimiter


def input_options(function: F) -> F:
    """Add the options that describe an input file; the command gets them as `options`."""
    return bundled(function, FileOptions, "options", (_FORMAT, *_WIDE, *_INPUT))


def output_file_options(function: F) -> F:
    """Add the options that describe an output file; the command gets them as `options`."""
    return bundled(function, FileOptions, "options", (_FORMAT, *_WIDE))


def bundled(function: F, kind: type[Any], name: str, options: Sequence[Callable[[Any], Any]]) -> F:
    """Add options; the command gets them as one argument, an attrs object of that kind."""
    fields = {field.name for field in attrs.fields(kind)}

    @functools.wraps(function)
    def command(*args: object, **given: Any) -> object:  # noqa: ANN401 - click's own
        chosen = kind(**{field: given.pop(field) for field in fields & set(given)})
        return function(*args, **{name: chosen}, **given)

    wrapped: Any = command
    for option in reversed(options):
        wrapped = option(wrapped)
    found: F = wrapped
    return found


def empty_option(function: F) -> F:
    """Add `--empty`."""
    return click.option(
        "--empty",
        type=click.Choice([SKIP, DELETE]),
        default=SKIP,
        show_default=True,
        help="Wide form: leave empty cells alone, or delete what is stored for them.",
    )(function)
