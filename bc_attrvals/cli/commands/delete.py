"""`delete`: values out of the store for good, by filter or by id."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from functools import partial
from http import HTTPStatus
from itertools import islice

import anyio.to_thread
import click

from bc_attrvals.cli.asking import confirm, need_somebody
from bc_attrvals.cli.checking import check
from bc_attrvals.cli.filtering import filter_options
from bc_attrvals.cli.interrupts import Stopper, run
from bc_attrvals.cli.progress import Progress
from bc_attrvals.cli.settings import Settings, connection_options, output_options, pass_settings
from bc_attrvals.cli.text import examples
from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.outcomes import DeleteReport
from bc_attrvals.core.requests import Operation
from bc_attrvals.errors import BCAttrValsError
from bc_attrvals.events import Event, RequestAnswered
from bc_attrvals.store import Store
from bc_attrvals.tables.files import STANDARD, InputFile, open_input
from bc_attrvals.tables.reading import BadRow, read_ids
from bc_attrvals.tables.text import counted, one_line

__all__ = ["delete"]

_CHUNK_IDS = 500
_GRACE_S = 3.0


@click.command(
    epilog=examples(
        "bc-attrvals delete --attribute-id 4",
        "bc-attrvals delete --modified-max 2020-01-01 --yes",
        "bc-attrvals export --name Legacy --all-columns | bc-attrvals delete --ids - --yes",
    )
)
@filter_options
@click.option(
    "--ids",
    metavar="FILE",
    help="The ids of the values: one a line, or CSV or Parquet with a column id; - is standard"
    " input.",
)
@click.option("--everything", is_flag=True, help="Delete every value of the store.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connection_options()
@output_options()
@pass_settings
def delete(
    settings: Settings,
    filter: AttributeValueFilter,
    *,
    ids: str | None,
    everything: bool,
    yes: bool,
) -> None:
    """Delete the values that match, or those of the ids in a file.

    Shows how many and asks first, unless --yes. By filter, values that come to match meanwhile are
    deleted, too. Ids that do not exist are no error.
    """
    given = [ids is not None, everything, not filter.is_empty]
    if sum(given) != 1:
        message = "say what to delete: by filter options, --ids or --everything, one of them"
        raise click.UsageError(message)
    need_somebody(yes=yes, stdin_taken=ids == STANDARD, what="deletes")
    store = settings.store()
    with ExitStack() as stack:
        source = None if ids is None else stack.enter_context(open_input(ids))
        if source is not None:
            total = check(read_ids(source), source.name, settings).good
        elif yes:
            total = None
        else:
            total = run(lambda _: _count(store, filter))
        if not yes and total:
            of = " - every value of the store" if everything else ""
            confirm(f"Delete {counted(total, 'value')}{of}?", "nothing was deleted")
        job = _Delete(settings, store, filter, source, total)
        # Ids are simply read no further; a listing is left at once.
        run(job.run, grace_s=0.0 if source is None else _GRACE_S)
    job.conclude()


async def _count(store: Store, filter: AttributeValueFilter) -> int:
    async with store:
        return await store.attribute_values.count(filter)


class _Delete:
    """One delete, by filter or by ids, and what it came to."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        filter: AttributeValueFilter,
        source: InputFile | None,
        total: int | None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._filter = filter
        self._source = source
        self._total = total
        self._report: DeleteReport | None = None
        self._error: BCAttrValsError | None = None
        self._signal_number: int | None = None
        self._calls = 0
        self._confirmed_calls = 0
        self._seconds = 0.0

    async def run(self, stopper: Stopper) -> None:
        """Delete; how it ended is told by `conclude`."""
        began_at = time.monotonic()
        async with self._store as store:
            values = store.attribute_values
            what = "Deleting (calls)" if self._source is None else "Deleting"
            with Progress(self._settings, store, what, self._total) as progress:
                store.subscribe(partial(self._hear, progress))
                try:
                    if self._source is None:
                        self._report = await values.delete_where(self._filter, everything=True)
                    else:
                        ids = self._ids(self._source, stopper, progress)
                        self._report = await values.delete(ids)
                except asyncio.CancelledError:
                    if not stopper.stopped:
                        raise
                except BCAttrValsError as error:
                    self._error = error
                    if isinstance(error.report, DeleteReport):
                        self._report = error.report
            self._calls = store.statistics().requests
        self._signal_number = stopper.signal_number
        self._seconds = time.monotonic() - began_at

    def _hear(self, progress: Progress, event: Event) -> None:
        if isinstance(event, RequestAnswered) and event.operation is Operation.DELETE:
            self._confirmed_calls += event.status == HTTPStatus.NO_CONTENT
            if self._source is None:
                progress.advance()

    async def _ids(
        self, source: InputFile, stopper: Stopper, progress: Progress
    ) -> AsyncGenerator[int]:
        entries = read_ids(source)

        def chunk() -> list[int | BadRow]:
            return list(islice(entries, _CHUNK_IDS))

        while ids := await anyio.to_thread.run_sync(chunk):
            for number in ids:
                if stopper.stopped:
                    return
                if isinstance(number, int):
                    progress.advance()
                    yield number

    def conclude(self) -> None:
        """Tell what was done, and exit."""
        deleted = None if self._report is None else self._report.deleted
        status = 0 if self._error is None else 3
        if self._signal_number is not None:
            status = 128 + self._signal_number
        if deleted is None:
            # Stopped half-way: only whole calls were heard of.
            text = f"Deleted the values of {counted(self._confirmed_calls, 'confirmed call')}"
        else:
            text = f"Deleted {counted(deleted, 'value')}"
        text += f"; {counted(self._calls, 'call')}, {self._seconds:.1f} s."
        summary = {
            "command": "delete",
            "exit_status": status,
            "deleted": deleted,
            "confirmed_calls": self._confirmed_calls,
            "calls": self._calls,
            "seconds": round(self._seconds, 3),
            "error": None if self._error is None else str(self._error),
        }
        self._settings.summarize(text, summary)
        if self._error is not None:
            click.echo(f"Error: {one_line(str(self._error))}", err=True)
        if self._signal_number is not None:
            click.echo("Interrupted.", err=True)
        click.get_current_context().exit(status)
