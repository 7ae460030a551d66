"""The filter options, and the filter they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any

import click

from bc_attrvals.cli.console import refuse
from bc_attrvals.cli.options import F, bundled, flag, parsed, repeatable
from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import check_id
from bc_attrvals.tables.error_text import cut
from bc_attrvals.tables.rows import parse_id


def _ids(given: Sequence[str]) -> list[int] | None:
    # An unset shell variable gives an empty text, which must not mean everything.
    texts = ",".join(given).split(",") if given else ()
    return [check_id(parse_id(text), "id") for text in texts] or None


def _moment(text: str) -> datetime | date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        message = f"{cut(text)} is not an ISO 8601 date or time, such as 2024-05-14T09:34:00Z"
        raise ValueError(message) from None
    if moment.tzinfo is None:
        raise ValueError(f"{cut(text)} has no time zone; append Z (UTC) or an offset")
    return moment


def _id_options(of: str) -> list[Callable[[Any], Any]]:
    return [
        repeatable(f"--{one}-id", f"{one}_id_in", "ID[,ID...]", _ids, f"{of} these {one}s.")
        for one in ("customer", "attribute")
    ]


_DATES = [
    click.option(
        f"--{what}-{bound}",
        f"date_{what}_{bound}",
        callback=parsed(_moment),
        metavar="WHEN",
        help=f"{what.capitalize()} at or {side} this moment. ISO 8601; a date is its midnight UTC.",
    )
    for what in ("created", "modified")
    for bound, side in (("min", "after"), ("max", "before"))
]
_NAME = click.option("--name", metavar="TEXT", help="Of the attribute with this name.")
_WHOLE_STORE = flag("--whole-store", "Scope: everything.")


def filter_options(function: F) -> F:
    """Add the filter options; the command gets them as `filter`, an `AttributeValueFilter`."""
    options = [*_id_options("Of"), _NAME, *_DATES]
    return bundled(function, AttributeValueFilter, "filter", options)


def scope_options(function: F) -> F:
    """Add the options of a sync's scope; the command gets `scope`, None if none is given."""
    return bundled(function, _scope, "scope", [*_id_options("Scope:"), _WHOLE_STORE])


def _scope(
    *, customer_id_in: list[int] | None, attribute_id_in: list[int] | None, whole_store: bool
) -> AttributeValueFilter | None:
    given = customer_id_in is not None or attribute_id_in is not None
    refuse(whole_store and given, "--whole-store goes with no other scope")
    scope = AttributeValueFilter(customer_id_in=customer_id_in, attribute_id_in=attribute_id_in)
    return scope if given or whole_store else None
