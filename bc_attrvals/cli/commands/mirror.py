"""`mirror`: keep a local copy of the store's values exact, and write what changed."""

from __future__ import annotations

from contextlib import aclosing, nullcontext
from typing import Final

import anyio.to_thread
import attrs
import click

from bc_attrvals.cli.filter_options import scope_options
from bc_attrvals.cli.job_runner import CommandJob, Result, Work, run_job
from bc_attrvals.cli.mirror_option import chunked, opened_mirror
from bc_attrvals.cli.options import command, file_option, flag
from bc_attrvals.cli.output_rows import output_errors
from bc_attrvals.cli.path_conflicts import check_paths
from bc_attrvals.cli.settings import Settings, with_store_settings
from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.events import Event, MirrorProgressed
from bc_attrvals.mirror.mirror import Mirror
from bc_attrvals.mirror.report import Change, RefreshReport
from bc_attrvals.tables.error_text import counted
from bc_attrvals.tables.files import OutputFile
from bc_attrvals.tables.layout import IDS, MOMENTS, file_format
from bc_attrvals.tables.writer import LongForm, row_writer

#: Changes written at once.
_CHUNK: Final = 1_000
_FORM: Final = LongForm(all_columns=True)
_COUNTS: Final = (
    ("added", "added"),
    ("changed", "changed"),
    ("removed", "removed"),
    ("stale", "wrong: changed without a new date_modified"),
    ("missing", "wrong: missing"),
    ("surplus", "wrong: not in the store"),
    ("uncounted", "wrong: counted too few"),
    ("saved_calls", "calls saved"),
)


@command(
    "bc-attrvals mirror store.db",
    "bc-attrvals mirror store.db --changes changes.jsonl",
    "bc-attrvals mirror scores.db --attribute-id 1,2 --verify",
)
@click.argument("file", type=click.Path(dir_okay=False), metavar="FILE")
@scope_options
@flag("--verify", "List everything, and say what was wrong.")
@file_option(
    "--changes",
    takes_dash=True,
    metavar="OUT",
    text="Gets the changes since the last time they were written: CSV, JSON Lines or Parquet.",
)
@with_store_settings
def mirror(
    settings: Settings,
    scope: AttributeValueFilter | None,
    *,
    file: str,
    verify: bool,
    changes: str | None,
) -> None:
    """Make FILE, a copy of the store's values, equal to the store.

    The first time everything is listed; then only what changed is, and counts prove the rest. FILE
    keeps its scope: without options it is the whole store, or what FILE already holds. Every 30
    days, and with --verify, everything is listed again. What was wrong is then named, and the exit
    status is 1.

    The rows of OUT have a sequence number and a kind, put or delete; a row that changed twice has
    only its last change. The first time every value is a put. If writing ends after OUT is in its
    place, the same changes may be written once more.
    """
    check_paths([], [("--changes", changes)], [("FILE", file)], json=settings.json)
    store = settings.store()
    with nullcontext() if changes is None else OutputFile(changes) as out:
        run_job(settings, store, _MirrorJob(file, scope, verify, out))


@attrs.define(eq=False)
class _MirrorJob(CommandJob):
    """One refresh, then the changes."""

    command = "mirror"
    what = "Listing"

    _path: str
    _scope: AttributeValueFilter | None
    _verify: bool
    _out: OutputFile | None
    _report: RefreshReport | None = attrs.field(default=None, init=False)
    _written: int | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        if self._out is not None:
            self._format = file_format(self._out.name, None)
            self.summary_to_stderr = self._out.is_standard

    async def run(self, work: Work) -> None:
        def hear(event: Event) -> None:
            if isinstance(event, MirrorProgressed):
                work.progress.reach(event.listed)

        async with opened_mirror(work.store, self._path, self._scope, keep=True) as opened:
            assert opened is not None
            work.store.subscribe(hear)
            self._report = await opened.refresh(verify=self._verify)
            if self._out is not None:
                with output_errors(self._out.name):
                    await self._write(opened, self._out)

    async def _write(self, opened: Mirror, out: OutputFile) -> None:
        last = await opened.changes_taken()
        columns = ("sequence", "kind", *_FORM.columns)
        writer = row_writer(out, self._format, columns, ids=("sequence", *IDS), moments=MOMENTS)

        def write(changes: list[Change]) -> None:
            rows = _FORM.rows(one.row for one in changes)
            writer.write(
                [(one.sequence, one.kind, *row) for one, row in zip(changes, rows, strict=True)]
            )

        written = 0
        async with aclosing(chunked(opened.changes(last), _CHUNK)) as chunks:
            async for chunk in chunks:
                await anyio.to_thread.run_sync(write, chunk)
                written, last = written + len(chunk), chunk[-1].sequence
        await anyio.to_thread.run_sync(out.commit)
        await opened.note_changes_taken(last)
        self._written = written

    def result(self) -> Result | None:
        report = self._report
        if report is None:
            return None
        how = "all of them listed" if report.verified else "proven by counts"
        headline = f"The mirror holds {counted(report.rows, 'value')}, {how}"
        if self._written is not None:
            headline += f"; {counted(self._written, 'change')} written"
        fields = report.to_dict()
        for one in ("calls", "retries", "seconds"):
            del fields[one]
        counts = [(words, int(getattr(report, name))) for name, words in _COUNTS]
        return Result(
            headline=headline,
            fields={**fields, "changes_written": self._written},
            counts=counts,
            values=report.listed,
            complete=report.ok,
        )
