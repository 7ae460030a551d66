"""How the columns of a file map to values: long form or wide form, in any format.

`Layout` is what the caller knows. `Layout.resolved` fits it to the columns that a file has.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Final

import attrs

from bc_attrvals.tables.error_text import cut
from bc_attrvals.tables.files import STANDARD, FileError

#: The fields of the long form by default.
FIELDS: Final = ("customer_id", "attribute_id", "value")
#: Columns of the long form that hold integers, and those that hold dates.
IDS: Final = ("customer_id", "attribute_id", "id")
MOMENTS: Final = ("date_created", "date_modified")
#: The fields that may hold a customer, an attribute and a value; the first in a file counts.
_CHOICES: Final = (("customer_id", "email"), ("attribute_id", "attribute"), ("value",))
#: All fields of the long form.
ALL_FIELDS: Final = tuple(field for choices in _CHOICES for field in choices)
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
_GZIP: Final = ".gz"
_COMPRESSED: Final = "is of a compression that is neither read nor written; use gzip (.gz)"
_WORKBOOK: Final = "is a workbook, which is neither read nor written; save it as CSV (UTF-8)"
_OTHER_KINDS: Final = {
    **dict.fromkeys((".bz2", ".xz", ".zst", ".zip"), _COMPRESSED),
    **dict.fromkeys((".xlsx", ".xlsm", ".xls", ".ods"), _WORKBOOK),
}


# A name that is no text is kept, and refused where it is checked or found in no file.
def _stripped(name: str | None) -> str | None:
    return name.strip() if isinstance(name, str) else name


def _stripped_names(columns: Mapping[str, str]) -> dict[str, str]:
    pairs = dict(columns).items()
    return {field: name.strip() if isinstance(name, str) else name for field, name in pairs}


def _stripped_columns(attributes: Mapping[str, int | str]) -> dict[str, int | str]:
    pairs = dict(attributes).items()
    return {name.strip() if isinstance(name, str) else name: one for name, one in pairs}


@attrs.frozen(kw_only=True)
class TableOptions:
    """What the columns of a table hold, and how text is written; of an input or an output.

    `encoding` is that of CSV and JSON Lines. `delimiter` separates the cells of CSV; None means
    that the header shows it.

    In long form a row has a customer (`customer_id` or `email`), an attribute (`attribute_id` or
    `attribute`, its name) and a `value`. `columns` maps these fields to the file's names where
    they differ. A file that has both an id and a name is read by its ids, unless `columns` says
    otherwise.

    In wide form a row has all values of a customer. `customer_column` holds the id, or
    `email_column` the address, where `id:7` is the customer 7. `attributes` maps columns to the id
    or the name of their attribute. With `attributes_by_header` each other column that has a name
    is an attribute of that name.

    Blanks around the names of columns do not count.
    """

    columns: Mapping[str, str] = attrs.field(factory=dict, converter=_stripped_names)
    customer_column: str | None = attrs.field(default=None, converter=_stripped)
    email_column: str | None = attrs.field(default=None, converter=_stripped)
    attributes: Mapping[str, int | str] = attrs.field(factory=dict, converter=_stripped_columns)
    attributes_by_header: bool = False
    encoding: str = ENCODING
    delimiter: str | None = None

    def in_format(self, format: str) -> Layout:
        """Return the layout of a table in a format."""
        names = [field.name for field in attrs.fields(TableOptions)]
        return Layout(format=format, **{name: getattr(self, name) for name in names})


@attrs.frozen(kw_only=True)
class Layout(TableOptions):
    """The options of a table, and its format."""

    format: str = CSV

    @property
    def wide(self) -> bool:
        """Whether a row holds all values of a customer."""
        return self.customer_column is not None or self.email_column is not None

    @property
    def fields(self) -> tuple[str, ...]:
        """The field of each cell of a row, in long form: `customer_id` or `email`, and so on."""
        return self._chosen(())

    def _chosen(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the field of each cell: one that `columns` has, else one of `names`."""
        return tuple(
            next(
                (one for known in (self.columns, names) for one in choices if one in known),
                choices[0],
            )
            for choices in _CHOICES
        )

    @property
    def needed(self) -> tuple[str, ...]:
        """The column of each cell that is read from a row. One column may stand for several."""
        key = self.customer_column or self.email_column
        if key is not None:
            return (key, *self.attributes)
        return tuple(self.columns.get(field, field) for field in self.fields)

    @property
    def by_email(self) -> bool:
        """Whether customers are given by address."""
        return self.email_column is not None or (not self.wide and self.fields[0] == "email")

    @property
    def by_id(self) -> bool:
        """Whether customers and attributes are all given by id."""
        if not self.wide:
            return self.fields == FIELDS
        named = any(isinstance(one, str) for one in self.attributes.values())
        return not (self.by_email or named or self.attributes_by_header)

    def in_long_form(self) -> Layout:
        """Return the long form, by ids, of the same format and way of writing."""
        return Layout(format=self.format, encoding=self.encoding, delimiter=self.delimiter)

    def fitted(self, names: Sequence[str]) -> Layout:
        """Return the layout with the fields or the attributes that columns of these names give."""
        if self.wide:
            if not self.attributes_by_header:
                return self
            key = self.customer_column or self.email_column
            others = {name: name for name in names if name and name != key}
            return attrs.evolve(
                self, attributes={**others, **self.attributes}, attributes_by_header=False
            )
        columns = {field: self.columns.get(field, field) for field in self._chosen(names)}
        return attrs.evolve(self, columns=columns)

    def resolved(self, names: Sequence[str], place: str) -> Layout:
        """Return the layout fitted to a file with columns of these names.

        Raises `FileError`, with suggestions, for columns that are missing or doubled. Its message
        begins with `place`, the file or the line of its header.
        """
        fitted = self.fitted(names)
        needed = dict.fromkeys(fitted.needed)
        missing = [column for column in needed if column not in names]
        if missing:
            # A column that became an attribute by its header may be the one that is meant.
            asked = self.needed if self.wide else fitted.needed
            meant = _near(missing, [name for name in names if name not in asked])
            near = ", ".join(f"{name!r} for {column}" for column, name in meant.items())
            hint = f"; did you mean {near}?" if near else ""
            found = cut(", ".join(names), 200)
            message = f"{place}: column missing: {', '.join(missing)}{hint}; the file has: {found}"
            raise FileError(message, meant=meant)
        doubled = [column for column in needed if names.count(column) > 1]
        if doubled:
            raise FileError(f"{place}: column doubled: {', '.join(doubled)}")
        if len(fitted.needed) == 1 and self.attributes_by_header:
            raise FileError(f"{place}: no columns of attributes")
        return fitted


def _near(missing: Sequence[str], others: Sequence[str]) -> dict[str, str]:
    """Return the most similar other column of each missing one, if any is similar."""
    plain = {_plain(name): name for name in reversed(others)}
    near = {}
    for column in missing:
        for found in difflib.get_close_matches(_plain(column), plain, n=1, cutoff=0.7):
            near[column] = plain.pop(found)
    return near


def _plain(name: str) -> str:
    return "".join(one for one in name.casefold() if one.isalnum()) or name


def file_format(name: str, given: str | None, default: str = CSV) -> str:
    """Return `csv`, `jsonl` or `parquet`: as given, or by the extension, or the default.

    `.gz` after the extension says that the file is compressed. Raises `FileError` for any other
    extension.
    """
    if given is not None:
        return given
    if name == STANDARD:
        return default
    path = PurePath(name)
    if path.suffix.lower() == _GZIP:
        path = path.with_suffix("")
    suffix = path.suffix.lower()
    found = _BY_EXTENSION.get(suffix)
    if found is not None:
        return found
    if not suffix or str(path).startswith(("/dev/", "/proc/")):
        return default
    unknown = f"unknown extension {path.suffix!r}; name the format: csv, jsonl or parquet"
    raise FileError(f"{name}: {_OTHER_KINDS.get(suffix, unknown)}")
