"""`export`: values out of the store, into a file or a pipe."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, closing
from functools import partial
from itertools import islice
from typing import Final

import anyio.to_thread
import attrs

from bc_attrvals.cli.attribute_names import attribute_ids, attribute_names
from bc_attrvals.cli.console import refuse
from bc_attrvals.cli.file_options import FileOptions, output_file_options
from bc_attrvals.cli.filter_options import filter_options
from bc_attrvals.cli.job_runner import CommandJob, Result, Work, run_job
from bc_attrvals.cli.mirror_option import chunked, existing_scope
from bc_attrvals.cli.options import bundled, command, file_option, flag
from bc_attrvals.cli.output_rows import output_errors
from bc_attrvals.cli.path_conflicts import check_paths
from bc_attrvals.cli.settings import Settings, with_store_settings
from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValue
from bc_attrvals.store import Store
from bc_attrvals.tables.error_text import counted
from bc_attrvals.tables.files import STANDARD, FileError, OutputFile
from bc_attrvals.tables.layout import CSV, IDS, MOMENTS, PARQUET, Layout
from bc_attrvals.tables.rows import Written, marked
from bc_attrvals.tables.writer import LongForm, RowWriter, WideTable, row_writer

#: Rows whose addresses are looked up together.
_CHUNK_ROWS: Final = 500
#: Addresses kept in memory.
_MOST_ADDRESSES: Final = 50_000


@attrs.frozen(kw_only=True)
class _Columns:
    """What the columns hold, as it was asked for."""

    all_columns: bool
    names: bool
    emails: bool
    spreadsheet_safe: bool


_COLUMNS: Final = (
    flag("--all-columns", "Long form: id and dates, too."),
    flag("--names", "The names of attributes, as a column or as headers."),
    flag("--emails", "The e-mail addresses of customers."),
    flag(
        "--spreadsheet-safe",
        "CSV: an apostrophe before what a spreadsheet would run. For people to open, and no input"
        " for upsert or sync.",
    ),
)


@command(
    "bc-attrvals export --output values.csv",
    "bc-attrvals export --attribute-id 1 --format jsonl | jq .value",
    "bc-attrvals export --all-columns --output values.parquet",
    "bc-attrvals export --spreadsheet-safe --output for-sales.csv",
    "bc-attrvals export --wide --customer-column ID --attribute x=1 --attribute zbar=4",
    "bc-attrvals export --wide --emails --names --output crm.csv",
    "bc-attrvals export --mirror store.db --output values.csv",
)
@file_option(
    "-o",
    "--output",
    takes_dash=True,
    default=STANDARD,
    text="Appears whole or not at all; - is standard output [default: -]",
)
@partial(bundled, make=_Columns, name="asked", options=_COLUMNS)
@output_file_options
@filter_options
@file_option("--mirror", text="Export this mirror, as its last refresh left it; makes no call.")
@with_store_settings
def export(
    settings: Settings,
    filter: AttributeValueFilter,
    *,
    output: str,
    asked: _Columns,
    options: FileOptions,
    mirror: str | None,
) -> None:
    """Write the values that match, exactly as they are stored.

    The long form has the columns customer_id, attribute_id, value, in the order the service lists
    them. With --wide there is one row a customer, by ascending id; a customer without any of the
    attributes has none, and an empty cell is an empty value or none at all. Rows are grouped in a
    temporary database on disk, so memory stays bounded in either form.

    --names and --emails add the columns attribute and email to the long form. With --wide, the
    addresses replace the ids, in --email-column (email by default). A customer without an address
    is id:7 there, which upsert and sync read; give --customer-column too for both. With --names and
    no --attribute every attribute of the store has a column under its name.

    Cells that begin with = + - @ (or their full-width forms), a tab or a line break are formulas to
    a spreadsheet. --spreadsheet-safe puts an apostrophe before them, except before plain numbers;
    the file then differs from the store. It is for people, and no input for upsert or sync.
    """
    shape = _shape(options, output, asked)
    refuse(asked.all_columns and options.wide, "--all-columns is for the long form")
    refuse(asked.spreadsheet_safe and shape.format != CSV, "--spreadsheet-safe is for CSV")
    refuse(
        shape.format == PARQUET and output == STANDARD and sys.stdout.isatty(),
        "Parquet is nothing for a terminal; give --output FILE",
    )
    check_paths([], [("--output", output)], [("--mirror", mirror)], json=settings.json)
    store = settings.store()
    with OutputFile(output) as file, output_errors(output):
        run_job(settings, store, _ExportJob(file, filter, shape, asked, mirror))


def _shape(options: FileOptions, output: str, asked: _Columns) -> Layout:
    """Return the layout; raise `click.UsageError` for options that do not go together."""
    shape = options.layout(output)
    if not options.wide:
        return shape
    if asked.emails and shape.email_column is None:
        shape = attrs.evolve(shape, email_column="email")
    refuse(
        not (shape.wide and (shape.attributes or asked.names)),
        "--wide needs --customer-column or --emails, and at least one --attribute or --names",
    )
    refuse(not asked.emails and shape.email_column, "--email-column goes with --emails")
    return shape


@attrs.define(eq=False)
class _ExportJob(CommandJob):
    """One export: pages in, rows out. What blocks is done in a thread."""

    command = "export"
    what = "Exporting"
    summary_to_stderr = True

    _file: OutputFile
    _filter: AttributeValueFilter
    _shape: Layout
    _asked: _Columns
    _mirror: str | None
    _is_complete: bool = attrs.field(default=False, init=False)
    _values: int = attrs.field(default=0, init=False)
    _rows: int = attrs.field(default=0, init=False)
    _without_address: int = attrs.field(default=0, init=False)

    async def run(self, work: Work) -> None:
        if self._shape.wide:
            await self._export_wide(work)
        else:
            await self._export_long(work)
        await anyio.to_thread.run_sync(self._file.commit)
        self._is_complete = True

    async def _export_long(self, work: Work) -> None:
        asked = self._asked
        names = await attribute_names(work.store) if asked.names else None
        addresses = _Addresses(work.store) if asked.emails else None
        form = LongForm(
            all_columns=asked.all_columns, names=names, emails={} if addresses else None
        )
        writer = self._writer(form.columns, IDS, MOMENTS)
        async with aclosing(self._read(work, self._filter)) as chunks:
            async for values in chunks:
                if addresses is not None:
                    emails = await addresses.of({one.customer_id for one in values})
                    form = attrs.evolve(form, emails=emails)
                await anyio.to_thread.run_sync(writer.write, form.rows(values))
                self._count(work, values)
        self._rows = self._values

    async def _export_wide(self, work: Work) -> None:
        shape = self._shape
        if shape.attributes:
            attributes = await attribute_ids(work.store, shape.attributes, "--attribute")
        else:
            attributes = _by_name(await attribute_names(work.store))
        wanted = self._filter.attribute_id_in
        ids = [one for one in attributes.values() if wanted is None or one in wanted]
        keys = [one for one in (shape.customer_column, shape.email_column) if one is not None]
        writer = self._writer((*keys, *attributes), keys[:1] if shape.customer_column else ())
        with closing(WideTable(attributes.values())) as table:
            narrowed = attrs.evolve(self._filter, attribute_id_in=tuple(ids))
            async with aclosing(self._read(work, narrowed)) as chunks:
                async for values in chunks:
                    await anyio.to_thread.run_sync(table.add, values)
                    self._count(work, values)
            rows = table.rows()
            while chunk := await anyio.to_thread.run_sync(lambda: list(islice(rows, _CHUNK_ROWS))):
                written: Sequence[Sequence[Written]] = chunk
                if shape.email_column is not None:
                    emails = await work.store.customers.emails_by_id([row[0] for row in chunk])
                    self._without_address += len(chunk) - len(emails)
                    if shape.customer_column is not None:
                        written = [(row[0], emails.get(row[0]), *row[1:]) for row in chunk]
                    else:
                        # Left out, such customers would be deleted by a sync of the file.
                        written = [(emails.get(row[0], marked(row[0])), *row[1:]) for row in chunk]
                await anyio.to_thread.run_sync(writer.write, written)
                self._rows += len(written)

    def _writer(
        self, columns: Sequence[str], ids: Sequence[str], moments: Sequence[str] = ()
    ) -> RowWriter:
        return row_writer(
            self._file,
            self._shape.format,
            columns,
            ids=ids,
            moments=moments,
            spreadsheet_safe=self._asked.spreadsheet_safe,
        )

    def _count(self, work: Work, values: list[AttributeValue]) -> None:
        self._values += len(values)
        work.progress.advance(len(values))

    async def _read(
        self, work: Work, filter: AttributeValueFilter
    ) -> AsyncGenerator[list[AttributeValue]]:
        if self._mirror is None:
            async with aclosing(work.store.attribute_values.pages(filter)) as pages:
                async for page in pages:
                    if not self._values:
                        work.progress.expect(page.pagination.total)
                    yield page.data
            return
        async with work.store.mirror(self._mirror, existing_scope(self._mirror)) as mirror:
            work.progress.expect(await mirror.count(filter))
            async with aclosing(chunked(mirror.rows(filter), _CHUNK_ROWS)) as chunks:
                async for values in chunks:
                    yield values

    def result(self) -> Result | None:
        """Return the counts; None unless the file is in its place."""
        if not self._is_complete:
            return None
        of = f" of {counted(self._rows, 'customer')}" if self._shape.wide else ""
        return Result(
            headline=f"Exported {counted(self._values, 'value')}{of}",
            fields={
                "values": self._values,
                "rows": self._rows,
                "without_address": self._without_address,
            },
            counts=[("customers without an address", self._without_address)],
            values=self._values,
        )


def _by_name(names: Mapping[int, str]) -> dict[str, int]:
    """Return all attributes under their names. Raises `FileError` for a name that two have."""
    by_name: dict[str, int] = {}
    for number, name in names.items():
        if by_name.setdefault(name, number) != number:
            message = (
                f"--names: the attributes {by_name[name]} and {number} are both named {name!r}"
            )
            raise FileError(f"{message}; say --attribute")
    return by_name


class _Addresses:
    """The e-mail addresses of customers, in memory that is bounded."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[int, str | None] = {}

    async def of(self, customers: set[int]) -> dict[int, str]:
        """Return the addresses of customers; a deleted customer has none."""
        if len(self._known) > _MOST_ADDRESSES:
            self._known.clear()
        missing = customers - self._known.keys()
        if missing:
            found = await self._store.customers.emails_by_id(missing)
            self._known.update((one, found.get(one)) for one in missing)
        known = ((one, self._known[one]) for one in customers)
        return {one: address for one, address in known if address is not None}
