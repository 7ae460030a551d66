"""Runs the job of a command: one Store, one progress bar, one summary, one exit status.

Every command that calls the service goes through `run_job`. A command describes its work as a
`CommandJob`; what it did comes back as a `Result`, also after a signal or an error ended it early.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, NoReturn, TypeVar

import attrs
import click

from bc_attrvals.cli.console import NOT_OF_THE_SERVICE, confirm, rate, table
from bc_attrvals.cli.interrupts import Stopper, run
from bc_attrvals.cli.output_rows import RowFile
from bc_attrvals.cli.progress import Progress
from bc_attrvals.cli.settings import Settings
from bc_attrvals.errors import BCAttrValsError
from bc_attrvals.store import Store
from bc_attrvals.tables.error_text import one_line
from bc_attrvals.tables.files import STANDARD

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Result:
    """What a job did.

    `headline` begins the text, `counts` are the table below it (without the zeros), or None where
    the headline is the whole text. `fields` are the job's part of the `--json` object. `values`
    are counted for the rate. `complete` is False when items failed or were left out;
    `first_failure` is the first reason.
    """

    headline: str
    fields: dict[str, object]
    counts: Sequence[tuple[str, int]] | None = ()
    values: int = 0
    complete: bool = True
    first_failure: str | None = None


@attrs.frozen
class Work:
    """What a job works with."""

    settings: Settings
    store: Store
    stopper: Stopper
    progress: Progress

    def show(self, text: str) -> None:
        """Show text on stderr, above the progress bar; nothing with `--quiet` or `--json`."""
        if not (self.settings.quiet or self.settings.json):
            with self.progress.paused():
                click.echo(text, err=True)

    def ask(self, question: str, otherwise: str) -> None:
        """Ask for consent; raise `Failure` unless the answer is yes. Ctrl-C ends the question."""
        with self.progress.paused(), self.stopper.raising_interrupts():
            confirm(question, otherwise)


class CommandJob:
    """The work of one command. `what` names its first part in the progress, of `total` items.

    `grace_s` is how long calls on the wire may take after the first signal; see `Stopper`.
    `files` are the outputs the job writes rows to while it runs.
    """

    command: ClassVar[str]
    what: str
    grace_s: float = 0.0
    total: int | None = None
    files: Sequence[RowFile] = ()
    #: Standard output holds rows; it also does where one of the `files` is `-`.
    summary_to_stderr: bool = False

    async def prepare(self, store: Store) -> None:
        """Check what only the store knows. An error is raised, as nothing was done yet."""

    async def run(self, work: Work) -> None:
        """Do the work; errors and cancellation end it early."""
        raise NotImplementedError

    async def settle(self, reason: str) -> None:
        """Account for what was left over; `reason` says why. Does nothing by default."""

    def result(self) -> Result | None:
        """Return what was done; None where nothing was, so that an error is all there is to say."""
        raise NotImplementedError


@attrs.define
class _End:
    """How a job ended."""

    error: BCAttrValsError | None = None
    signal_number: int | None = None
    traffic: dict[str, int] = attrs.field(factory=dict)


def call_store(store: Store, work: Callable[[Store], Awaitable[T]]) -> T:
    """Open a Store for a few calls, without progress, and return what they return."""

    async def opened(_: Stopper) -> T:
        async with store:
            return await work(store)

    return run(opened)


def run_job(settings: Settings, store: Store, job: CommandJob) -> NoReturn:
    """Run a job, print its summary, and exit with its status.

    The status is 128 and the number of a signal, 3 after an error of the service that ended the
    job, 1 where items failed, names are unknown or a file could not be read or written, else 0. An
    error or a signal of a job without a result is raised.
    """
    began_at = time.monotonic()
    end = run(lambda stopper: _supervised(settings, store, job, stopper), grace_s=job.grace_s)
    problems = [file.problem for file in job.files if file.problem is not None]
    result = job.result()
    assert result is not None
    status = _status(end, complete=result.complete and not problems)
    seconds = time.monotonic() - began_at
    summary = {
        "command": job.command,
        "exit_status": status,
        **result.fields,
        **end.traffic,
        "seconds": round(seconds, 3),
        "error": str(end.error) if end.error is not None else next(iter(problems), None),
    }
    text = result.headline
    if result.counts is not None:
        text += f"; {seconds:.1f} s ({rate(result.values, seconds)}).\n"
        traffic = [("calls", end.traffic["calls"]), ("429s", end.traffic["rate_limited"])]
        shown = [*((name, count) for name, count in result.counts if count), *traffic]
        text += table((name, f"{count:,}") for name, count in shown)
    hints = (file.hint() for file in job.files if file.count and file.problem is None)
    text = "\n".join([text, *hints])
    err = job.summary_to_stderr or any(file.name == STANDARD for file in job.files)
    status = settings.summarize(text, summary, err=err)
    for problem in problems:
        click.echo(f"Error: {one_line(problem)}", err=True)
    if end.error is not None:
        click.echo(f"Error: {one_line(str(end.error))}", err=True)
    elif result.first_failure is not None:
        click.echo(f"The first failure: {one_line(result.first_failure)}", err=True)
    if end.signal_number is not None:
        click.echo("Interrupted.", err=True)
    click.get_current_context().exit(status)


async def _supervised(settings: Settings, store: Store, job: CommandJob, stopper: Stopper) -> _End:
    end = _End()
    async with store:
        with Progress(settings, store, job.what, job.total) as progress:
            await job.prepare(store)
            ticking = asyncio.create_task(progress.tick())
            try:
                await job.run(Work(settings, store, stopper, progress))
            except asyncio.CancelledError:
                if not stopper.stopped:
                    raise
            except BCAttrValsError as error:
                end.error = error
            finally:
                ticking.cancel()
                stopper.spare()
            why = "interrupted" if end.error is None else str(end.error)
            await job.settle(f"not sent: {why}")
        statistics = store.statistics()
    end.signal_number = stopper.signal_number
    end.traffic = {
        "calls": statistics.requests,
        "retries": statistics.retries,
        "rate_limited": statistics.rate_limited,
    }
    if job.result() is None:
        stopper.check()
        assert end.error is not None
        raise end.error
    # The handlers of signals are still set, so none of them cuts a commit off.
    for file in job.files:
        file.commit()
    return end


def _status(end: _End, *, complete: bool) -> int:
    if end.signal_number is not None:
        return 128 + end.signal_number
    if isinstance(end.error, NOT_OF_THE_SERVICE):
        # Part of the job was done.
        return 1
    if end.error is not None:
        return 3
    return 0 if complete else 1
