"""`count`: how many values match."""

from __future__ import annotations

import click

from bc_attrvals.cli.filtering import filter_options
from bc_attrvals.cli.running import call_store
from bc_attrvals.cli.settings import Settings, connection_options, output_options, pass_settings
from bc_attrvals.cli.text import examples
from bc_attrvals.core.filters import AttributeValueFilter

__all__ = ["count"]


@click.command(
    epilog=examples(
        "bc-attrvals count",
        "bc-attrvals count --attribute-id 4 --modified-min 2024-05-14T09:34:00Z",
    )
)
@filter_options
@connection_options()
@output_options()
@pass_settings
def count(settings: Settings, filter: AttributeValueFilter) -> None:
    """Print how many values match; all of them without filters."""
    number = call_store(settings.store(), lambda store: store.attribute_values.count(filter))
    if settings.json:
        settings.summarize("", {"command": "count", "exit_status": 0, "count": number})
    else:
        click.echo(number)
