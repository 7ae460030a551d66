"""The options that describe a file, and the `Layout` that they make."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import attrs
import click

from bc_attrvals.cli.attribute_names import id_or_name, shown_attribute
from bc_attrvals.cli.console import refuse
from bc_attrvals.cli.options import F, bundled, flag, parsed, repeatable
from bc_attrvals.tables.files import FileError
from bc_attrvals.tables.layout import (
    ALL_FIELDS,
    CSV,
    ENCODING,
    JSON_LINES,
    PARQUET,
    Layout,
    TableOptions,
    file_format,
)


@attrs.frozen(kw_only=True)
class FileOptions(TableOptions):
    """The options of one file, as they were given."""

    format: str | None
    wide: bool

    def layout(self, file: str) -> Layout:
        """Return the layout of a file of this name.

        Raises `click.UsageError` for options that do not go together, `FileError` for a name whose
        extension is no known format.
        """
        form = file_format(file, self.format)
        refuse(self.delimiter is not None and form != CSV, "--delimiter is for CSV")
        any_wide = any((*self._keys, self.attributes, self.attributes_by_header))
        refuse(
            not self.wide and any_wide,
            "--customer-column, --email-column and --attribute go with --wide",
        )
        refuse(
            self.wide and self.columns, "--column is for the long form; with --wide say --attribute"
        )
        for key in self._keys if form != CSV else ():
            refuse(key in self.attributes, f"column {key!r} can't be both customer and value")
        return self.in_format(form)

    def input_layout(self, file: str) -> Layout:
        """Return the layout of an input file, as `layout` does; it has one column of customers."""
        layout = self.layout(file)
        some_attributes = self.attributes or self.attributes_by_header
        refuse(all(self._keys), "give --customer-column or --email-column, not both")
        refuse(
            self.wide and not (any(self._keys) and some_attributes),
            "--wide needs --customer-column or --email-column, "
            "and at least one --attribute or --attributes-by-header",
        )
        refuse(
            self.attributes_by_header and layout.format == JSON_LINES,
            "--attributes-by-header is for CSV and Parquet",
        )
        return layout

    @contextmanager
    def hinted(self) -> Iterator[None]:
        """Add to a `FileError` for missing columns the options that name the similar ones."""
        try:
            yield
        except FileError as error:
            words = [
                word for column, name in error.meant.items() for word in self._naming(column, name)
            ]
            if not words:
                raise
            raise FileError(f"{error}; say {shlex.join(words)}") from None

    def _naming(self, column: str, name: str) -> Iterator[str]:
        """Yield the options that name a column, with another name in its place."""
        if not self.wide:
            given = {own: field for field, own in self.columns.items()}
            yield from ("--column", f"{given.get(column, column)}={name}")
            return
        for option, key in (("customer", self.customer_column), ("email", self.email_column)):
            if key == column:
                yield from (f"--{option}-column", name)
        if column in self.attributes:
            yield from ("--attribute", f"{name}={shown_attribute(self.attributes[column])}")

    @property
    def _keys(self) -> tuple[str | None, str | None]:
        return self.customer_column, self.email_column


def _columns(pairs: Sequence[str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for pair in pairs:
        field, equals, name = pair.partition("=")
        refuse(
            not equals or not name or field not in ALL_FIELDS,
            f"--column takes FIELD=NAME, FIELD one of {', '.join(ALL_FIELDS)}; not {pair!r}",
        )
        refuse(field in columns, f"--column names {field} twice")
        columns[field] = name
    for both in (("customer_id", "email"), ("attribute_id", "attribute")):
        words = f"--column names both {' and '.join(both)}; one is enough"
        refuse(columns.keys() >= set(both), words)
    return columns


def _attributes(pairs: Sequence[str]) -> dict[str, int | str]:
    attributes: dict[str, int | str] = {}
    for pair in pairs:
        # A column's name may hold the sign.
        column, _, text = (part.strip() for part in pair.rpartition("="))
        refuse(not column or not text, f"--attribute takes COLUMN=ID or COLUMN=NAME; not {pair!r}")
        try:
            attribute = id_or_name(text)
        except ValueError as error:
            raise click.UsageError(f"--attribute {pair!r}: {error}") from None
        twice = column in attributes or attribute in attributes.values()
        refuse(twice, f"--attribute {pair!r}: column or attribute is named twice")
        attributes[column] = attribute
    return attributes


def _delimiter(given: str) -> str:
    delimiter = {"tab": "\t", r"\t": "\t"}.get(given.lower(), given)
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise ValueError("must be one character, and no quote or line break")
    return delimiter


_FORMAT: Final = click.option(
    "--format",
    type=click.Choice([CSV, JSON_LINES, PARQUET]),
    help="Format of the file; by default that of its extension, else csv.",
)
_WIDE: Final = (
    flag("--wide", "One row a customer, a column an attribute."),
    click.option(
        "--customer-column", metavar="COLUMN", help="Wide form: the column of customer ids."
    ),
    click.option(
        "--email-column", metavar="COLUMN", help="Wide form: the column of e-mail addresses."
    ),
    repeatable(
        "--attribute", "attributes", "COLUMN=ID|NAME", _attributes,
        "Wide form: the attribute a column holds, by id or by name; a name of digits as name:2024.",
    ),
)  # fmt: skip
_INPUT: Final = (
    flag("--attributes-by-header", "Wide form: every other column is the attribute of its name."),
    repeatable(
        "--column",
        "columns",
        "FIELD=NAME",
        _columns,
        "Long form: the file's name for customer_id or email, attribute_id or attribute, or value.",
    ),
    click.option(
        "--encoding", default=ENCODING, show_default=True, help="Encoding of a text file."
    ),
    click.option(
        "--delimiter",
        metavar="CHARACTER",
        callback=parsed(_delimiter),
        help="CSV: what separates the cells, or `tab`; by default comma, semicolon, tab or bar, as"
        " the header shows.",
    ),
)


def input_options(function: F) -> F:
    """Add the options that describe an input file; the command gets them as `options`."""
    return bundled(function, FileOptions, "options", (_FORMAT, *_WIDE, *_INPUT))


def output_file_options(function: F) -> F:
    """Add the options that describe an output file; the command gets them as `options`."""
    return bundled(function, FileOptions, "options", (_FORMAT, *_WIDE))
