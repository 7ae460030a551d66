"""`upsert`: values of a file into the store."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack

import click

from bc_attrvals.cli.asking import confirm, need_somebody
from bc_attrvals.cli.checking import check_values
from bc_attrvals.cli.emptying import EmptyCells, told_of_empty_cells
from bc_attrvals.cli.failures import open_failures
from bc_attrvals.cli.file_options import DELETE, FileOptions, empty_option, input_options
from bc_attrvals.cli.interrupts import Stopper, run
from bc_attrvals.cli.progress import Progress
from bc_attrvals.cli.sending import Sender, Totals
from bc_attrvals.cli.settings import Settings, connection_options, output_options, pass_settings
from bc_attrvals.cli.text import examples, rate, table
from bc_attrvals.errors import BCAttrValsError
from bc_attrvals.scheduling.scheduler import Statistics
from bc_attrvals.store import Store
from bc_attrvals.tables.files import STANDARD, open_input
from bc_attrvals.tables.layout import file_format
from bc_attrvals.tables.reading import read_values
from bc_attrvals.tables.text import counted, one_line

__all__ = ["upsert"]

#: How long calls under way may take to be answered after Ctrl-C, in seconds.
_GRACE_S = 3.0


@click.command(
    epilog=examples(
        "bc-attrvals upsert values.csv --failures failed.csv",
        "bc-attrvals upsert - --format jsonl < values.jsonl",
        "bc-attrvals upsert crm.csv --column customer_id=CustomerNo",
        "bc-attrvals upsert scores.parquet --failures failed.parquet",
        "bc-attrvals upsert s.csv --wide --customer-column ID --attribute x=1 --attribute zbar=4",
        "bc-attrvals upsert s.csv --wide --customer-column ID --attribute x=1 --empty delete",
    )
)
@click.argument("file", type=click.Path(allow_dash=True))
@input_options
@empty_option
@click.option("--yes", is_flag=True, help="With --empty delete: do not ask.")
@click.option(
    "--failures",
    type=click.Path(allow_dash=True),
    metavar="FILE",
    help="Gets all values that were not stored, with the reason; fit to be given in again.",
)
@click.option("--skip-invalid", is_flag=True, help="Send the good rows though others are bad.")
@connection_options()
@output_options()
@pass_settings
def upsert(
    settings: Settings,
    *,
    file: str,
    options: FileOptions,
    empty: str,
    yes: bool,
    failures: str | None,
    skip_invalid: bool,
) -> None:
    """Store the values of FILE (- is standard input); create them or replace what is there.

    The long form has the columns customer_id, attribute_id, value; with --wide a row holds a
    customer's values. Other columns are ignored. CSV is delimited by comma, semicolon, tab or bar,
    as its header shows, or by --delimiter. Values go out as the strings that stand in the file.

    In wide form empty cells are left alone; with --empty delete they are values that shall not
    exist: after all values are sent, those that are stored nevertheless are looked up and deleted.
    A field that an object of JSON Lines does not have is left alone even then.

    All rows are checked before anything is sent. Of rows with the same customer and attribute the
    last one wins. An upsert may be repeated without harm, so after an interruption simply run it
    again, or give it the --failures file with the same options. After --empty delete that file is
    in long form.
    """
    shape = options.layout(file)
    if failures == STANDARD and settings.json:
        raise click.UsageError("--json and the failures can't share stdout")
    emptying = empty == DELETE
    if emptying:
        if not shape.wide:
            raise click.UsageError("--empty delete goes with --wide")
        need_somebody(yes=yes, stdin_taken=file == STANDARD, what="deletes")
    if failures is not None:
        # A name that can't be is told before the file is read.
        file_format(failures, None)
    store = settings.store()
    with ExitStack() as stack:
        source = stack.enter_context(open_input(file))
        cells = stack.enter_context(EmptyCells()) if emptying else None
        checked = check_values(
            source, shape, settings, skip_invalid=skip_invalid, empty_cells=cells
        )
        if not yes:
            _ask(cells)
        # A row of the wide form would have other cells empty, too.
        form = shape.in_long_form() if emptying else shape
        output, writer = open_failures(failures, form, stack)

        async def send(stopper: Stopper) -> tuple[Totals, Statistics, int | None]:
            sender = Sender(read_values(source, shape), writer)
            async with store:
                with Progress(settings, store, "Storing", checked.good) as progress:
                    totals = await sender.run(store, stopper, progress)
                if cells is not None and totals.error is None and not stopper.stopped:
                    totals.error = await _empty(cells, settings, store, stopper)
                return totals, store.statistics(), stopper.signal_number

        began_at = time.monotonic()
        totals, statistics, signal_number = run(send, grace_s=_GRACE_S)
        seconds = time.monotonic() - began_at
        if output is not None:
            output.commit()
    status = _exit_status(totals, signal_number)
    summary = {
        "command": "upsert",
        "exit_status": status,
        **totals.as_dict(),
        "deleted": None if cells is None else cells.deleted,
        "calls": statistics.requests,
        "retries": statistics.retries,
        "rate_limited": statistics.rate_limited,
        "seconds": round(seconds, 3),
    }
    text = _told(totals, statistics, seconds, cells)
    if writer is not None and writer.count:
        how = "in long form" if emptying else "with the same options"
        text += f"\n{counted(writer.count, 'row')} in {failures}, to be given in again {how}."
    settings.summarize(text, summary, err=failures == STANDARD)
    _tell_why(totals, signal_number)
    click.get_current_context().exit(status)


def _ask(cells: EmptyCells | None) -> None:
    if cells is not None and cells.count:
        what = f"the stored values of {counted(cells.count, 'empty cell')}"
        confirm(f"Delete {what} after the upsert?", "nothing was sent")


def _tell_why(totals: Totals, signal_number: int | None) -> None:
    if totals.error is not None:
        click.echo(f"Error: {one_line(str(totals.error))}", err=True)
    elif totals.first_reason is not None:
        click.echo(f"The first failure: {one_line(totals.first_reason)}", err=True)
    if signal_number is not None:
        click.echo("Interrupted.", err=True)


async def _empty(
    cells: EmptyCells, settings: Settings, store: Store, stopper: Stopper
) -> BCAttrValsError | None:
    """Delete what is stored for empty cells; return the error that ended it early, if any."""
    try:
        found = await cells.find(store, stopper)
        with Progress(settings, store, "Deleting", found) as progress:
            await cells.delete(store, stopper, progress)
    except BCAttrValsError as error:
        return error
    except asyncio.CancelledError:
        if not stopper.stopped:
            raise
    return None


def _exit_status(totals: Totals, signal_number: int | None) -> int:
    if signal_number is not None:
        return 128 + signal_number
    if totals.error is not None:
        return 3
    return 0 if totals.complete else 1


def _told(totals: Totals, statistics: Statistics, seconds: float, cells: EmptyCells | None) -> str:
    head = f"Stored {counted(totals.stored, 'value')}"
    rows = [
        (word, f"{count:,}")
        for count, word in (
            (totals.stored, "stored"),
            (totals.failed, "failed"),
            (totals.superseded, "superseded by later rows"),
            (totals.not_sent, "not sent"),
            (totals.unknown, "under way and not known to be stored"),
            (totals.skipped, "invalid and skipped"),
        )
        if count
    ]
    if cells is not None:
        rows += told_of_empty_cells(cells)
    rows += [("calls", f"{statistics.requests:,}"), ("429s", f"{statistics.rate_limited:,}")]
    return f"{head}; {seconds:.1f} s ({rate(totals.stored, seconds)}).\n{table(rows)}"
