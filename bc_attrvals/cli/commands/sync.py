"""`sync`: make the store hold what a file says, and write only what differs."""

from __future__ import annotations

from contextlib import ExitStack

import click

from bc_attrvals.cli.deletion_limit import DeletionLimit, max_delete_option
from bc_attrvals.cli.filtering import scope_options
from bc_attrvals.cli.mirroring import mirror_option
from bc_attrvals.cli.output_rows import RowFile
from bc_attrvals.cli.running import Job, run_job
from bc_attrvals.cli.settings import Settings, with_store_settings
from bc_attrvals.cli.syncing import DIFF_COLUMNS, DryRunJob, SyncJob, SyncOptions
from bc_attrvals.cli.text import examples
from bc_attrvals.cli.value_file import ValueFile, value_file_options
from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.tables.files import FileError


@click.command(
    epilog=examples(
        "bc-attrvals sync scores.csv --dry-run --diff changes.csv",
        "bc-attrvals sync scores.csv --journal scores.db --failures failed.csv",
        "bc-attrvals sync scores.csv --attribute-id 1,2 --prune",
        "bc-attrvals sync scores.csv --whole-store --prune --mirror store.db",
        "bc-attrvals sync s.csv --wide --customer-column ID --attribute x=1 --prune --yes",
    )
)
@value_file_options
@scope_options
@click.option("--prune", is_flag=True, help="Delete what is stored in the scope and not in FILE.")
@click.option(
    "--allow-empty", is_flag=True, help="With --prune: a FILE without values may delete all."
)
@click.option(
    "--allow-unresolved",
    is_flag=True,
    help="With --prune: delete though names or addresses in FILE are unknown.",
)
@max_delete_option
@click.option(
    "--diff",
    type=click.Path(allow_dash=True),
    metavar="FILE",
    help="With --dry-run: gets each change, with the old and the new value.",
)
@mirror_option("Refresh this mirror and compare with it; it is made if it is missing.")
@with_store_settings
def sync(
    settings: Settings,
    source: ValueFile,
    scope: AttributeValueFilter | None,
    *,
    prune: bool,
    allow_empty: bool,
    allow_unresolved: bool,
    max_delete: DeletionLimit,
    diff: str | None,
    mirror: str | None,
) -> None:
    """Make the store hold the values of FILE (- is standard input), writing only what differs.

    The plan is shown first, with its calls and its time. --dry-run stops there; --diff gets each
    change. With --prune the values in the scope that FILE does not have are deleted. With
    --empty delete those stored for empty cells are. Both ask first, unless --yes. The scope is what
    the options say; with --wide, by default the attributes named.

    With unknown names or addresses in FILE nothing is pruned, unless --allow-unresolved. A prune of
    more than half of the values in the scope, and of more than 100, is refused. Say with
    --max-delete how many it may be.

    All rows are checked before anything is sent. Of rows with the same customer and attribute the
    last one wins. Without a journal an interrupted sync is simply run again: values that are right
    already are not written twice. The journal of a finished sync gives way to the next sync. An
    unfinished one of another FILE or scope is refused; --restart discards it.
    """
    if diff is not None and not source.dry_run:
        raise click.UsageError("--diff goes with --dry-run")
    shape = source.check(
        settings, prune=prune, outputs=[("--diff", diff)], databases=[("--mirror", mirror)]
    )
    if prune:
        _check_prune(source, has_scope=scope is not None or shape.wide)
    else:
        for name, given in (
            ("--allow-empty", allow_empty),
            ("--allow-unresolved", allow_unresolved),
            ("--max-delete", max_delete.is_given),
        ):
            if given:
                raise click.UsageError(f"{name} goes with --prune")
    options = SyncOptions(
        scope=scope,
        prune=prune,
        allow_empty=allow_empty,
        allow_unresolved=allow_unresolved,
        limit=max_delete,
        mirror=mirror,
    )
    store = settings.store(source.limits)
    with ExitStack() as stack:
        values = stack.enter_context(source.opened(settings, shape))
        if prune and not values.good and not allow_empty:
            message = f"{values.name}: no values, so --prune would delete all; say --allow-empty"
            raise FileError(message)
        values.warn_if_none()
        job: Job = SyncJob(values, source, options)
        if source.dry_run:
            rows = None
            if diff is not None:
                rows = RowFile(stack, diff, DIFF_COLUMNS, like=shape, ids=DIFF_COLUMNS[1:3])
            job = DryRunJob(values, source, options, rows)
        run_job(settings, store, job)


def _check_prune(source: ValueFile, *, has_scope: bool) -> None:
    """Raise `click.UsageError` for options that --prune does not go with."""
    if not has_scope:
        message = "--prune needs a scope: --attribute-id, --customer-id or --whole-store"
        raise click.UsageError(message)
    if source.skip_invalid:
        # An unreadable row is not a missing row.
        raise click.UsageError("--skip-invalid with --prune would delete the values of bad rows")
    if source.deletes_empty:
        raise click.UsageError("--prune already deletes the values of empty cells")
