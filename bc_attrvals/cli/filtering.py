"""The filter options, and the filter they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from functools import wraps
from typing import Any

import click

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import check_id
from bc_attrvals.tables.rows import parse_id
from bc_attrvals.tables.text import cut

_DATES = (
    ("created_min", "Created at or after this moment."),
    ("created_max", "Created at or before this moment."),
    ("modified_min", "Modified at or after this moment."),
    ("modified_max", "Modified at or before this moment."),
)


def _ids(ctx: click.Context, param: click.Parameter, given: Sequence[str]) -> list[int] | None:
    if not given:
        return None
    ids: list[int] = []
    for text in ",".join(given).split(","):
        try:
            ids.append(check_id(parse_id(text), "id"))
        except ValueError as error:
            # An unset shell variable gives an empty list, which must not mean everything.
            raise click.BadParameter(str(error), ctx=ctx, param=param) from None
    return ids


def _moment(ctx: click.Context, param: click.Parameter, text: str | None) -> datetime | date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        message = f"{cut(text)} is not an ISO 8601 date or time, such as 2024-05-14T09:34:00Z"
        raise click.BadParameter(message, ctx=ctx, param=param) from None
    if moment.tzinfo is None:
        message = f"{cut(text)} has no time zone; append Z (UTC) or an offset"
        raise click.BadParameter(message, ctx=ctx, param=param)
    return moment


def filter_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the filter options; the command gets them as `filter`, an `AttributeValueFilter`."""

    @wraps(function)
    def filtered(
        *args: Any,  # noqa: ANN401 - passed on
        customer_id: list[int] | None,
        attribute_id: list[int] | None,
        name: str | None,
        created_min: datetime | date | None,
        created_max: datetime | date | None,
        modified_min: datetime | date | None,
        modified_max: datetime | date | None,
        **kwargs: Any,  # noqa: ANN401 - passed on
    ) -> None:
        wanted = AttributeValueFilter(
            customer_id_in=customer_id,
            attribute_id_in=attribute_id,
            name=name,
            date_created_min=created_min,
            date_created_max=created_max,
            date_modified_min=modified_min,
            date_modified_max=modified_max,
        )
        function(*args, filter=wanted, **kwargs)

    command: Callable[..., None] = filtered
    for option, text in reversed(_DATES):
        command = click.option(
            f"--{option.replace('_', '-')}",
            callback=_moment,
            metavar="WHEN",
            help=f"{text} ISO 8601; a date is its midnight UTC.",
        )(command)
    command = click.option("--name", metavar="TEXT", help="Of the attribute with this name.")(
        command
    )
    return _id_options(command, "Of")


def _id_options(command: Callable[..., None], of: str) -> Callable[..., None]:
    for name in ("attribute", "customer"):
        command = click.option(
            f"--{name}-id",
            multiple=True,
            callback=_ids,
            metavar="ID[,ID...]",
            help=f"{of} these {name}s. Repeatable.",
        )(command)
    return command


def scope_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a sync's scope; the command gets `scope`, None if none is given."""

    @wraps(function)
    def scoped(
        *args: Any,  # noqa: ANN401 - passed on
        customer_id: list[int] | None,
        attribute_id: list[int] | None,
        whole_store: bool,
        **kwargs: Any,  # noqa: ANN401 - passed on
    ) -> None:
        given = customer_id is not None or attribute_id is not None
        if whole_store and given:
            raise click.UsageError("--whole-store goes with no other scope")
        scope = AttributeValueFilter(customer_id_in=customer_id, attribute_id_in=attribute_id)
        function(*args, scope=scope if given or whole_store else None, **kwargs)

    command = click.option("--whole-store", is_flag=True, help="Scope: everything.")(scoped)
    return _id_options(command, "Scope:")
