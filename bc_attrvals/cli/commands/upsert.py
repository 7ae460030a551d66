"""`upsert`: values of a file into the store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

import click

from bc_attrvals.cli.checking import check
from bc_attrvals.cli.failures import open_failures
from bc_attrvals.cli.files import STANDARD, open_input
from bc_attrvals.cli.interrupts import Stopper, run
from bc_attrvals.cli.layout import (
    file_format,
    input_options,
    layout,
)
from bc_attrvals.cli.progress import Progress
from bc_attrvals.cli.reading import read_values
from bc_attrvals.cli.sending import Sender, Totals
from bc_attrvals.cli.settings import Settings, connection_options, output_options, pass_settings
from bc_attrvals.cli.text import counted, examples, one_line, rate, table
from bc_attrvals.scheduler import Statistics

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
    )
)
@click.argument("file", type=click.Path(allow_dash=True))
@input_options
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
    format: str | None,
    wide: bool,
    customer_column: str | None,
    attribute: Sequence[str],
    column: Sequence[str],
    encoding: str,
    failures: str | None,
    skip_invalid: bool,
) -> None:
    """Store the values of FILE (- is standard input); create them or replace what is there.

    The long form has the columns customer_id, attribute_id, value; with --wide a row holds a
    customer's values, and empty cells are left alone. Other columns are ignored. CSV may be
    delimited by comma, semicolon, tab, bar or whatever the header shows. Values go out as the
    strings that stand in the file.

    All rows are checked before anything is sent. Of rows with the same customer and attribute the
    last one wins. An upsert may be repeated without harm, so after an interruption simply run it
    again, or give it the --failures file with the same options.
    """
    shape = layout(
        file_format(file, format),
        wide=wide,
        customer_column=customer_column,
        attribute=attribute,
        column=column,
    )
    if failures == STANDARD and settings.json:
        raise click.UsageError("--json and the failures can't share stdout")
    if failures is not None:
        # A name that can't be is told before the file is read.
        file_format(failures, None)
    store = settings.store()
    with ExitStack() as stack:
        source = stack.enter_context(open_input(file))
        checked = check(
            read_values(source, shape, encoding), source.name, settings, skip_invalid=skip_invalid
        )
        output, writer = open_failures(failures, encoding, shape, stack)

        async def send(stopper: Stopper) -> tuple[Totals, Statistics, int | None]:
            sender = Sender(read_values(source, shape, encoding), writer)
            async with store:
                with Progress(settings, store, "Storing", checked.good) as progress:
                    totals = await sender.run(store, stopper, progress)
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
        "calls": statistics.requests,
        "retries": statistics.retries,
        "rate_limited": statistics.rate_limited,
        "seconds": round(seconds, 3),
    }
    text = _told(totals, statistics, seconds)
    if writer is not None and writer.count:
        text += (
            f"\n{counted(writer.count, 'row')} in {failures}, to be given in again with the same"
        )
        text += " options."
    settings.summarize(text, summary, err=failures == STANDARD)
    _tell_why(totals, signal_number)
    click.get_current_context().exit(status)


def _tell_why(totals: Totals, signal_number: int | None) -> None:
    if totals.error is not None:
        click.echo(f"Error: {one_line(str(totals.error))}", err=True)
    elif totals.first_reason is not None:
        click.echo(f"The first failure: {one_line(totals.first_reason)}", err=True)
    if signal_number is not None:
        click.echo("Interrupted.", err=True)


def _exit_status(totals: Totals, signal_number: int | None) -> int:
    if signal_number is not None:
        return 128 + signal_number
    if totals.error is not None:
        return 3
    return 0 if totals.complete else 1


def _told(totals: Totals, statistics: Statistics, seconds: float) -> str:
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
    rows += [("calls", f"{statistics.requests:,}"), ("429s", f"{statistics.rate_limited:,}")]
    return f"{head}; {seconds:.1f} s ({rate(totals.stored, seconds)}).\n{table(rows)}"
