"""`export`: values out of the store, into a file or a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing, closing

import anyio.to_thread
import attrs
import click

from bc_attrvals.cli.file_options import FileOptions, output_file_options
from bc_attrvals.cli.filtering import filter_options
from bc_attrvals.cli.interrupts import Stopper, run
from bc_attrvals.cli.progress import Progress
from bc_attrvals.cli.settings import Settings, connection_options, output_options, pass_settings
from bc_attrvals.cli.text import examples, rate
from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValue
from bc_attrvals.store import Store
from bc_attrvals.tables.files import STANDARD, OutputFile
from bc_attrvals.tables.layout import CSV, FIELDS, PARQUET, Layout
from bc_attrvals.tables.text import counted
from bc_attrvals.tables.writing import (
    ALL_COLUMNS,
    IDS,
    MOMENTS,
    RowWriter,
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
    began_at = time.monotonic()
    with OutputFile(output) as file:
        job = _Export(
            settings,
            store,
            _narrowed(filter, shape),
            shape,
            file,
            all_columns=all_columns,
            spreadsheet_safe=spreadsheet_safe,
        )
        values, rows = run(job.run)
        file.commit()
    seconds = time.monotonic() - began_at
    text = f"Exported {counted(values, 'value')}"
    if shape.wide:
        text += f" of {counted(rows, 'customer')}"
    text += f" in {counted(job.calls, 'call')}, {seconds:.1f} s ({rate(values, seconds)})."
    summary = {
        "command": "export",
        "exit_status": 0,
        "values": values,
        "rows": rows,
        "calls": job.calls,
        "seconds": round(seconds, 3),
    }
    settings.summarize(text, summary, err=True)


def _narrowed(filter: AttributeValueFilter, shape: Layout) -> AttributeValueFilter:
    """Ask for the attributes that have a column, and no others."""
    if not shape.wide:
        return filter
    wanted = filter.attribute_id_in
    ids = [one for one in shape.attributes.values() if wanted is None or one in wanted]
    return attrs.evolve(filter, attribute_id_in=tuple(ids))


class _Export:
    """One export: pages in, rows out; what blocks is done in a thread."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        filter: AttributeValueFilter,
        shape: Layout,
        file: OutputFile,
        *,
        all_columns: bool,
        spreadsheet_safe: bool,
    ) -> None:
        self._settings = settings
        self._store = store
        self._filter = filter
        self._shape = shape
        self._file = file
        self._all_columns = all_columns
        self._spreadsheet_safe = spreadsheet_safe
        self.calls = 0

    async def run(self, stopper: Stopper) -> tuple[int, int]:
        """Export; return how many values and how many rows."""
        del stopper
        async with self._store:
            if self._shape.customer_column is not None:
                return await self._wide(self._shape.customer_column)
            writer = self._writer(ALL_COLUMNS if self._all_columns else FIELDS, IDS, MOMENTS)

            def write(values: list[AttributeValue]) -> None:
                writer.write(long_rows(values, all_columns=self._all_columns))

            count = await self._read(write)
            return count, count

    async def _wide(self, customer_column: str) -> tuple[int, int]:
        writer = self._writer((customer_column, *self._shape.attributes), (customer_column,))
        with closing(WideTable(self._shape)) as table:
            count = await self._read(table.add)

            def write() -> int:
                written = 0
                for row in table.rows():
                    writer.write([row])
                    written += 1
                return written

            return count, await anyio.to_thread.run_sync(write)

    def _writer(
        self, columns: Sequence[str], ids: Sequence[str], moments: Sequence[str] = ()
    ) -> RowWriter:
        return row_writer(
            self._file,
            self._shape.format,
            columns,
            ids=ids,
            moments=moments,
            spreadsheet_safe=self._spreadsheet_safe,
        )

    async def _read(self, take: Callable[[list[AttributeValue]], None]) -> int:
        count = 0
        with Progress(self._settings, self._store, "Exporting") as progress:
            async with aclosing(self._store.attribute_values.pages(self._filter)) as pages:
                async for page in pages:
                    if not count:
                        progress.expect(page.pagination.total)
                    count += len(page.data)
                    await anyio.to_thread.run_sync(take, page.data)
                    progress.advance(len(page.data))
        self.calls = self._store.statistics().requests
        return count
