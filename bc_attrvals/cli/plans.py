"""Shows the plan of a sync: as a table on a terminal, else as plain lines."""

from __future__ import annotations

import sys
from typing import Final

import click

from bc_attrvals.cli.settings import Settings
from bc_attrvals.cli.text import duration
from bc_attrvals.core.sync_plan import Reading, SyncPlan
from bc_attrvals.tables.text import counted

__all__ = ["show_plan"]

_READ: Final = {
    Reading.LIST: "list the scope",
    Reading.LOOK_UP: "look customers up",
    Reading.NOTHING: "nothing: writing all costs less",
}


def show_plan(
    plan: SyncPlan,
    settings: Settings,
    *,
    empty_cells: int | None = None,
    summary: dict[str, object] | None = None,
) -> None:
    """Show a plan on stderr, or with a `summary` as the command's result on stdout.

    `empty_cells` is how many values are to be deleted besides, for empty cells.
    """
    if summary is not None and settings.json:
        settings.summarize("", summary)
    elif not settings.quiet and not settings.json:
        stream = sys.stderr if summary is None else sys.stdout
        if stream.isatty():
            _draw(plan, empty_cells, stderr=summary is None)
        else:
            click.echo(str(plan), err=summary is None)
            if empty_cells is not None:
                click.echo(
                    f"{'besides, for empty cells, delete':<10}{empty_cells:>11,}",
                    err=summary is None,
                )


def _draw(plan: SyncPlan, empty_cells: int | None, *, stderr: bool) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title="Plan",
        title_justify="left",
        title_style="bold",
        caption=f"{counted(plan.calls, 'call')} in all, about {duration(plan.seconds)}",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("step")
    table.add_column("values", justify="right")
    table.add_column("calls", justify="right")
    table.add_row(f"read ({_READ[plan.reading]})", "", f"{plan.read_calls:,}")
    if plan.reading is Reading.NOTHING:
        table.add_row("write", f"{plan.write:,}", f"{plan.write_calls:,}")
    else:
        table.add_row("create", f"{plan.create:,}", "", style="green" if plan.create else None)
        table.add_row("update", f"{plan.update:,}", f"{plan.write_calls:,}")
        table.add_row("leave unchanged", f"{plan.unchanged:,}", "", style="dim")
    style = "bold red" if plan.delete else None
    table.add_row("delete", f"{plan.delete:,}", f"{plan.delete_calls:,}", style=style)
    if empty_cells is not None:
        style = "bold red" if empty_cells else None
        table.add_row("delete for empty cells", f"{empty_cells:,}", "", style=style)
    Console(stderr=stderr).print(table)
