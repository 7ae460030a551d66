"""`sync`: make the store hold what a file says, and write only what differs."""

from __future__ import annotations

from contextlib import ExitStack

import click

from bc_attrvals.cli.asking import need_somebody
from bc_attrvals.cli.checking import check_values
from bc_attrvals.cli.emptying import EmptyCells
from bc_attrvals.cli.failures import open_failures
from bc_attrvals.cli.file_options import DELETE, FileOptions, empty_option, input_options
from bc_attrvals.cli.filtering import scope_options
from bc_attrvals.cli.interrupts import run
from bc_attrvals.cli.settings import Settings, connection_options, output_options, pass_settings
from bc_attrvals.cli.syncing import FileSync
from bc_attrvals.cli.text import examples
from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.tables.files import STANDARD, FileError, open_input
from bc_attrvals.tables.layout import Layout, file_format
from bc_attrvals.tables.reading import read_values

__all__ = ["sync"]


@click.command(
    epilog=examples(
        "bc-attrvals sync scores.csv --dry-run",
        "bc-attrvals sync scores.csv --journal scores.db --failures failed.csv",
        "bc-attrvals sync scores.csv --attribute-id 1,2 --prune",
        "bc-attrvals sync s.csv --wide --customer-column ID --attribute x=1 --prune --yes",
    )
)
@click.argument("file")
@input_options
@empty_option
@scope_options
@click.option("--prune", is_flag=True, help="Delete what is stored in the scope and not in FILE.")
@click.option(
    "--allow-empty", is_flag=True, help="With --prune: a FILE without values may delete all."
)
@click.option(
    "--journal",
    metavar="FILE",
    help="Makes the job resumable: run the same again after it was stopped, and it goes on.",
)
@click.option("--dry-run", is_flag=True, help="Show the plan and stop there.")
@click.option(
    "--failures",
    metavar="FILE",
    help="Gets the values the service did not take, with the reason; fit to be given in again.",
)
@click.option("--skip-invalid", is_flag=True, help="Take the good rows though others are bad.")
@click.option("--yes", is_flag=True, help="Do not ask before deleting.")
@connection_options()
@output_options()
@pass_settings
def sync(
    settings: Settings,
    scope: AttributeValueFilter | None,
    *,
    file: str,
    options: FileOptions,
    empty: str,
    prune: bool,
    allow_empty: bool,
    journal: str | None,
    dry_run: bool,
    failures: str | None,
    skip_invalid: bool,
    yes: bool,
) -> None:
    """Make the store hold the values of FILE (- is standard input), writing only what differs.

    The plan is shown first, with what it costs in calls and time; --dry-run stops there. With
    --prune the values in the scope that FILE does not have are deleted, which is asked first,
    unless --yes; and so are, with --empty delete, those stored for empty cells. The scope is what
    the options say; with --wide, by default the attributes named.

    All rows are checked before anything is sent. Of rows with the same customer and attribute the
    last one wins. Without a journal an interrupted sync is simply run again: what is right already
    is not written twice. The journal of a finished sync makes a rerun a no-op; give another one, or
    remove it, to begin anew.
    """
    shape = options.layout(file)
    scope = _default_scope(scope, shape)
    emptying = empty == DELETE
    if prune:
        _check_prune(scope, skip_invalid=skip_invalid, emptying=emptying)
    elif allow_empty:
        raise click.UsageError("--allow-empty goes with --prune")
    if emptying and not shape.wide:
        raise click.UsageError("--empty delete goes with --wide")
    if prune or emptying:
        need_somebody(yes=yes or dry_run, stdin_taken=file == STANDARD, what="deletes")
    if failures == STANDARD and settings.json:
        raise click.UsageError("--json and the failures can't share stdout")
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
        if prune and not checked.good and not allow_empty:
            message = f"{source.name}: no values, so --prune would delete all; say --allow-empty"
            raise FileError(message)
        # A row of the wide form would have other cells empty, too.
        form = shape.in_long_form() if emptying else shape
        output, writer = open_failures(failures, form, stack)
        job = FileSync(
            settings,
            store,
            read_values(source, shape),
            total=checked.good,
            scope=scope,
            prune=prune,
            allow_empty=allow_empty,
            journal=journal,
            dry_run=dry_run,
            asks=not (yes or dry_run),
            failures=writer,
            empty_cells=cells,
        )
        run(job.run)
        if output is not None:
            output.commit()
    job.conclude(failures)


def _check_prune(scope: AttributeValueFilter | None, *, skip_invalid: bool, emptying: bool) -> None:
    """Raise `click.UsageError` for what --prune does not go with."""
    if scope is None:
        message = "--prune needs a scope: --attribute-id, --customer-id or --whole-store"
        raise click.UsageError(message)
    if skip_invalid:
        # A row that can't be read is not a row that is not there.
        raise click.UsageError("--skip-invalid with --prune would delete what bad rows stand for")
    if emptying:
        raise click.UsageError("--prune deletes what empty cells stand for already")


def _default_scope(
    scope: AttributeValueFilter | None, shape: Layout
) -> AttributeValueFilter | None:
    if scope is None and shape.wide:
        return AttributeValueFilter(attribute_id_in=sorted(shape.attributes.values()))
    return scope
