"""Output files that a job writes rows to while it runs. An error of the disk does not end the job.

Rows that could not be written go to stderr as CSV when the job is over.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, TypeAlias

from bc_attrvals.cli.standard_streams import leave
from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.core.named_value import NamedValue
from bc_attrvals.tables.error_text import counted, one_line
from bc_attrvals.tables.files import STANDARD, FileError, OutputFile
from bc_attrvals.tables.layout import CSV, ENCODING, FIELDS, PARQUET, Layout, file_format
from bc_attrvals.tables.rows import BadRow, Written, marked
from bc_attrvals.tables.writer import row_writer

_Cell: TypeAlias = str | int | float | bool | None

_REASON: Final = "reason"
_ROWS_A_FLUSH: Final = 100
#: Rows of Parquet reach the disk at the end, so they are kept for stderr, up to this many.
_MOST_KEPT: Final = 100_000


@contextmanager
def output_errors(name: str) -> Iterator[None]:
    """Raise errors of the disk as `FileError` that names the output; a broken pipe stays."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if name == STANDARD:
            leave(sys.stdout)
            name = "standard output"
        raise FileError(f"{name}: {error.strerror or error}") from None


class RowFile:
    """Rows under fixed columns, in a file that is put in its place by `commit`. Blocks.

    `count` is the number of rows. `problem` names the file and the reason once a row could not be
    written; `commit` then keeps the rows that were.
    """

    def __init__(
        self,
        stack: ExitStack,
        name: str,
        columns: Sequence[str],
        *,
        like: Layout,
        ids: Sequence[str] = (),
    ) -> None:
        """Begin, with a header. `stack` drops what is not committed.

        The format is that of the name, by default that of `like`, the input; so are encoding and
        delimiter. `ids` are the columns of integers. Raises `FileError` where the file can't be
        made, or the format's extra is not installed.
        """
        self.name = name
        self.count = 0
        self.problem: str | None = None
        self._format = file_format(name, None, like.format)
        self._columns = columns
        encoding = "utf-8" if like.encoding == ENCODING else like.encoding
        self._file = stack.enter_context(OutputFile(name, encoding))
        self._rows = row_writer(
            self._file, self._format, columns, ids=ids, delimiter=like.delimiter
        )
        self._unsaved: list[Sequence[Written]] = []
        self._lost = 0

    def write(self, row: Sequence[Written]) -> None:
        """Write a row."""
        self.count += 1
        if len(self._unsaved) < _MOST_KEPT:
            self._unsaved.append(row)
        else:
            self._lost += 1
        if self.problem is not None:
            return
        try:
            with output_errors(self.name):
                self._rows.write([row])
                if self._format != PARQUET and len(self._unsaved) >= _ROWS_A_FLUSH:
                    self._file.flush()
                    self._unsaved.clear()
        except FileError as error:
            self.problem = str(error)

    def commit(self) -> None:
        """Put the file in its place; rows that are not in it go to stderr."""
        if self.problem is None:
            try:
                with output_errors(self.name):
                    if self._format != PARQUET:
                        self._file.flush()
                        self._unsaved.clear()
                    self._file.commit()
            except FileError as error:
                self.problem = str(error)
        if self.problem is None:
            return
        kept = self._file.commit_flushed()
        if kept is not None and kept != self.name:
            self.problem += f"; the rows written so far are in {one_line(kept)}"
        if self._unsaved:
            writer = csv.writer(sys.stderr, lineterminator="\n")
            writer.writerow(self._columns)
            writer.writerows(self._unsaved)
            self.problem += "; rows that are not in it are above"
        if self._lost:
            self.problem += f"; {self._lost:,} more rows are lost"

    def hint(self) -> str:
        """Return a line for the summary about the rows in the file."""
        return f"{counted(self.count, 'row')} {self._where}."

    @property
    def _where(self) -> str:
        return "on stdout" if self.name == STANDARD else f"in {one_line(self.name)}"


class FailureFile(RowFile):
    """The rows of a `--failures` file, under the column names and in the encoding of the input.

    Its name says its format; by default it is the input's. The wide form has a row for each value,
    whose other cells are empty. It can't be an input where empty cells are deleted, so `layout` is
    then the long form. Where every column is the attribute of its name (`by_header`), the
    column of the reasons has no name.
    """

    def __init__(
        self,
        stack: ExitStack,
        name: str,
        layout: Layout,
        *,
        same_options: bool,
        by_header: bool = False,
    ) -> None:
        self._how = "with the same options" if same_options else "in long form"
        reason = "" if by_header else _REASON
        columns = layout.needed
        self._places: dict[object, int] | None = None
        self._ids = (not layout.by_email, layout.fields[1] == FIELDS[1])
        if layout.wide:
            places = enumerate(layout.attributes.values(), 1)
            self._places = {attribute: place for place, attribute in places}
            ids = columns[:1] if self._ids[0] else ()
        else:
            ids = tuple(name for name, is_id in zip(columns, self._ids, strict=False) if is_id)
        while reason in columns:
            reason += "_"
        self._width = len(columns)
        super().__init__(stack, name, (*columns, reason), ids=ids, like=layout)

    def item(self, item: AttributeValueUpsert | NamedValue, reason: str) -> None:
        """Write a value that was not stored."""
        value = item.text if isinstance(item, NamedValue) else item.value
        customer, attribute = item.key
        if isinstance(customer, int) and not self._ids[0]:
            customer = marked(customer)
        self._put((customer, attribute, value), one_line(reason, 500))

    def bad_row(self, row: BadRow) -> None:
        """Write what is known of a row that was skipped."""
        customer, attribute, value = (row.cells.get(field) for field in FIELDS)
        if self._places is None:
            attribute = self._fitting(attribute, is_id=self._ids[1])
        customer = self._fitting(customer, is_id=self._ids[0])
        self._put((customer, attribute, self._fitting(value, is_id=False)), str(row))

    def _fitting(self, cell: _Cell, *, is_id: bool) -> _Cell:
        if self._format == CSV:
            return cell
        if is_id and isinstance(cell, str) and cell.isascii() and cell.isdigit() and len(cell) < 16:
            return int(cell)
        # A cell of another type has no place in a column of Parquet; the reason shows it.
        fits = self._format != PARQUET or isinstance(cell, int if is_id else str)
        return cell if fits else None

    def hint(self) -> str:
        """Return a line for the summary: how the rows are sent again."""
        return f"{counted(self.count, 'row')} {self._where}, to be sent again {self._how}."

    def _put(self, cells: tuple[Written, Written, Written], reason: str) -> None:
        row: list[Written]
        if self._places is None:
            row = list(cells)
        else:
            customer, attribute, value = cells
            row = [customer, *[None] * (self._width - 1)]
            place = self._places.get(attribute)
            if place is not None:
                row[place] = value
        self.write((*row, reason))
