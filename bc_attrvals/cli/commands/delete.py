"""`delete`: delete values for good, by filter or by id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import ExitStack
from http import HTTPStatus
from itertools import islice

import anyio.to_thread
import click

from bc_attrvals.cli.console import confirm, need_terminal, refuse, warn
from bc_attrvals.cli.filter_options import filter_options
from bc_attrvals.cli.input_check import check
from bc_attrvals.cli.job_runner import CommandJob, Result, Work, call_store, run_job
from bc_attrvals.cli.options import command, flag
from bc_attrvals.cli.settings import Settings, with_store_settings
from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.outcomes import DeleteReport
from bc_attrvals.core.requests import Operation
from bc_attrvals.errors import BCAttrValsError
from bc_attrvals.events import Event, RequestAnswered
from bc_attrvals.tables.error_text import counted
from bc_attrvals.tables.files import STANDARD, open_input
from bc_attrvals.tables.reader import read_ids
from bc_attrvals.tables.rows import BadRow

_CHUNK_IDS = 500


@command(
    "bc-attrvals delete --attribute-id 4",
    "bc-attrvals delete --modified-max 2020-01-01 --yes",
    "bc-attrvals export --name Legacy --all-columns | bc-attrvals delete --ids - --yes",
)
@filter_options
@click.option(
    "--ids",
    metavar="FILE",
    help="The ids of the values: one a line, or CSV or Parquet with a column id; - is standard"
    " input.",
)
@flag("--everything", "Delete every value of the store.")
@flag("--yes", "Do not ask.")
@with_store_settings
def delete(
    settings: Settings,
    filter: AttributeValueFilter,
    *,
    ids: str | None,
    everything: bool,
    yes: bool,
) -> None:
    """Delete the values that match, or those of the ids in a file.

    Shows how many and asks first, unless --yes. With filters, values that begin to match meanwhile
    are deleted, too. Ids that do not exist are no error.
    """
    given = [ids is not None, everything, not filter.is_empty]
    words = "say what to delete: by filter options, --ids or --everything, one of them"
    refuse(sum(given) != 1, words)
    need_terminal(yes=yes, stdin_taken=ids == STANDARD, what="deletes")
    store = settings.store()
    with ExitStack() as stack:
        rows: Iterable[int | BadRow] | None = None
        total: int | None = None
        if ids is not None:
            source = stack.enter_context(open_input(ids))
            rows, total = check(read_ids(source), source.name, settings, stack)
            if not total:
                warn(f"{source.name}: there are no ids in it")
        elif not yes:
            total = call_store(store, lambda opened: opened.attribute_values.count(filter))
        if not yes and total:
            of = " - every value of the store" if everything else ""
            confirm(f"Delete {counted(total, 'value')}{of}?", "nothing was deleted")
        run_job(settings, store, _DeleteJob(filter, rows, total))


class _DeleteJob(CommandJob):
    """One delete, by filter or by ids."""

    command = "delete"

    def __init__(
        self, filter: AttributeValueFilter, ids: Iterable[int | BadRow] | None, total: int | None
    ) -> None:
        self.what = "Deleting (calls)" if ids is None else "Deleting"
        # A stop ends the reading of ids; a listing is cancelled at once.
        self.grace_s = 0.0 if ids is None else 3.0
        self.total = total
        self._filter = filter
        self._given = ids
        self._report: DeleteReport | None = None
        self._was_cut_off = False
        self._confirmed_calls = 0

    async def run(self, work: Work) -> None:
        def hear(event: Event) -> None:
            if isinstance(event, RequestAnswered) and event.operation is Operation.DELETE:
                self._confirmed_calls += event.status == HTTPStatus.NO_CONTENT
                if self._given is None:
                    work.progress.advance()

        work.store.subscribe(hear)
        values = work.store.attribute_values
        try:
            if self._given is None:
                self._report = await values.delete_where(self._filter, everything=True)
            else:
                self._report = await values.delete(self._ids(self._given, work))
        except asyncio.CancelledError:
            self._was_cut_off = True
            raise
        except BCAttrValsError as error:
            if isinstance(error.report, DeleteReport):
                self._report = error.report
            raise

    async def _ids(self, rows: Iterable[int | BadRow], work: Work) -> AsyncGenerator[int]:
        entries = iter(rows)
        while ids := await anyio.to_thread.run_sync(lambda: list(islice(entries, _CHUNK_IDS))):
            for number in ids:
                if work.stopper.stopped:
                    return
                if isinstance(number, int):
                    work.progress.advance()
                    yield number

    def result(self) -> Result | None:
        """Return the sum; of a delete that was cut off the calls that were confirmed."""
        report = self._report
        if report is None and not self._was_cut_off:
            return None
        calls = counted(self._confirmed_calls, "confirmed call")
        return Result(
            headline=f"Deleted the values of {calls}"
            if report is None
            else f"Deleted {counted(report.deleted, 'value')}",
            fields={
                "deleted": None if report is None else report.deleted,
                "confirmed_calls": self._confirmed_calls,
            },
            values=0 if report is None else report.deleted,
        )
