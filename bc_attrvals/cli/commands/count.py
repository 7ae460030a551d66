"""`count`: how many values match."""

from __future__ import annotations

from bc_attrvals.cli.console import print_result
from bc_attrvals.cli.filter_options import filter_options
from bc_attrvals.cli.job_runner import call_store
from bc_attrvals.cli.mirror_option import existing_scope
from bc_attrvals.cli.options import command, file_option
from bc_attrvals.cli.settings import Settings, with_store_settings
from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.store import Store


@command(
    "bc-attrvals count",
    "bc-attrvals count --attribute-id 4 --modified-min 2024-05-14T09:34:00Z",
    "bc-attrvals count --mirror store.db",
)
@filter_options
@file_option("--mirror", text="Count in this mirror, as its last refresh left it; makes no call.")
@with_store_settings
def count(settings: Settings, filter: AttributeValueFilter, *, mirror: str | None) -> None:
    """Print how many values match; all of them without filters."""

    async def counted(store: Store) -> int:
        if mirror is None:
            return await store.attribute_values.count(filter)
        async with store.mirror(mirror, existing_scope(mirror)) as opened:
            return await opened.count(filter)

    number = call_store(settings.store(), counted)
    if settings.json:
        settings.finish("count", "", {"count": number})
    print_result(str(number))
