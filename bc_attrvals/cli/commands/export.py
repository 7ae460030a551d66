"""`export`: values out of the store, into a file or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, aclosing, closing

import anyio.to_thread
import attrs
import click

from bc_attrvals.cli.file_options import FileOptions, output_file_options
from bc_attrvals.cli.filtering import filter_options
from bc_attrvals.cli.running import Job, Result, Work, run_job
from bc_attrvals.cli.settings import (
    Settings,
    connection_options,
    leave_stdout,
    output_options,
    pass_settings,
)
from bc_attrvals.cli.text import examples
from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValue
from bc_attrvals.tables.files import STANDARD, FileError, OutputFile
from bc_attrvals.tables.layout import CSV, FIELDS, PARQUET, Layout
from bc_attrvals.tables.text import counted
from bc_attrvals.tables.writing import (
    ALL_COLUMNS,
    IDS,
    MOMENTS,
    WideTable,
    long_rows,
    row_writer,
)

__all__ = ["export"]


@click.command(
    epilog=examples(
        "bc-attrvals export --output values.csv",
        "bc-attrvals export --attribute-id 1 --format jsonl | jq .value",
        "bc-attrvals export --all-columns --output values.parquet",
        "bc-attrvals export --spreadsheet-safe --output for-sales.csv",
        "bc-attrvals export --wide --customer-column ID --attribute x=1 --attribute zbar=4",
    )
)
@click.option(
    "-o",
    "--output",
    type=click.Path(allow_dash=True),
    default=STANDARD,
    metavar="FILE",
    help="Appears whole or not at all; - is standard output [default: -]",
)
@click.option("--all-columns", is_flag=True, help="Long form: id and dates, too.")
@click.option(
    "--spreadsheet-safe",
    is_flag=True,
    help="CSV: an apostrophe before what a spreadsheet would run. For people to open, not to be"
    " given in again.",
)
@output_file_options
@filter_options
@connection_options()
@output_options()
@pass_settings
def export(
    settings: Settings,
    filter: AttributeValueFilter,
    *,
    output: str,
    all_columns: bool,
    spreadsheet_safe: bool,
    options: FileOptions,
) -> None:
    """Write the values that match, exactly as they are stored.

    The long form has the columns customer_id, attribute_id, value, in the order the service lists
    them. With --wide there is one row a customer, by ascending id; a customer without any of the
    attributes has none, and an empty cell is an empty value or none at all. Rows are grouped in a
    temporary database on disk, so memory stays bounded in either form.

    Cells that begin with = + - @ (or their full-width forms), a tab or a line break are formulas to
    a spreadsheet. --spreadsheet-safe puts an apostrophe before them, except before plain numbers;
    the file then differs from what is stored: it is for people, and not to be given in again.
    """
    if settings.json and output == STANDARD:
        raise click.UsageError("--json and the values can't share stdout; give --output FILE")
    if all_columns and options.wide:
        raise click.UsageError("--all-columns is for the long form")
    shape = options.layout(output)
    if spreadsheet_safe and shape.format != CSV:
        raise click.UsageError("--spreadsheet-safe is for CSV")
    if shape.format == PARQUET and output == STANDARD and sys.stdout.isatty():
        raise click.UsageError("Parquet is nothing for a terminal; give --output FILE")
    store = settings.store()
    with ExitStack() as stack:
        try:
            job = _ExportJob(
                stack, output, _narrowed(filter, shape), shape, all_columns, spreadsheet_safe
            )
            run_job(settings, store, job)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            name = output
            if output == STANDARD:
                name = "standard output"
                leave_stdout()
            raise FileError(f"{name}: {error.strerror or error}") from None


def _narrowed(filter: AttributeValueFilter, shape: Layout) -> AttributeValueFilter:
    """Return a filter for the attributes that have a column, and no others."""
    if not shape.wide:
        return filter
    wanted = filter.attribute_id_in
    named = [one for one in shape.attributes.values() if isinstance(one, int)]
    ids = [one for one in named if wanted is None or one in wanted]
    return attrs.evolve(filter, attribute_id_in=tuple(ids))


class _ExportJob(Job):
    """One export: pages in, rows out. What blocks is done in a thread."""

    command = "export"
    what = "Exporting"
    summary_to_stderr = True

    def __init__(
        self,
        stack: ExitStack,
        output: str,
        filter: AttributeValueFilter,
        shape: Layout,
        all_columns: bool,
        spreadsheet_safe: bool,
    ) -> None:
        self._filter = filter
        self._shape = shape
        self._all_columns = all_columns
        self._is_complete = False
        self._values = self._rows = 0
        columns: Sequence[str] = ALL_COLUMNS if all_columns else FIELDS
        ids: Sequence[str] = IDS
        if shape.customer_column is not None:
            columns, ids = (shape.customer_column, *shape.attributes), (shape.customer_column,)
        self._file = stack.enter_context(OutputFile(output))
        self._writer = row_writer(
            self._file,
            shape.format,
            columns,
            ids=ids,
            moments=() if shape.wide else MOMENTS,
            spreadsheet_safe=spreadsheet_safe,
        )

    async def run(self, work: Work) -> None:
        """Export, and put the file in its place."""
        if self._shape.wide:
            with closing(WideTable(self._shape)) as table:
                await self._read(work, table.add)
                await anyio.to_thread.run_sync(self._write_wide, table)
        else:
            await self._read(work, self._write_long)
            self._rows = self._values
        await anyio.to_thread.run_sync(self._file.commit)
        self._is_complete = True

    def _write_long(self, values: list[AttributeValue]) -> None:
        self._writer.write(long_rows(values, all_columns=self._all_columns))

    def _write_wide(self, table: WideTable) -> None:
        for row in table.rows():
            self._writer.write([row])
            self._rows += 1

    async def _read(self, work: Work, take: Callable[[list[AttributeValue]], None]) -> None:
        async with aclosing(work.store.attribute_values.pages(self._filter)) as pages:
            async for page in pages:
                if not self._values:
                    work.progress.expect(page.pagination.total)
                self._values += len(page.data)
                await anyio.to_thread.run_sync(take, page.data)
                work.progress.advance(len(page.data))

    def result(self) -> Result | None:
        """Return the counts; None unless the file is in its place."""
        if not self._is_complete:
            return None
        of = f" of {counted(self._rows, 'customer')}" if self._shape.wide else ""
        return Result(
            headline=f"Exported {counted(self._values, 'value')}{of}",
            fields={"values": self._values, "rows": self._rows},
            values=self._values,
        )
