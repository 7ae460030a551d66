"""Looks up the attributes that options and headers name, before any value is sent or read."""

from __future__ import annotations

from collections.abc import Mapping

from bc_attrvals.core.models import check_id
from bc_attrvals.core.named_value import check_attribute_name
from bc_attrvals.errors import UnknownAttributeError
from bc_attrvals.naming.definitions import Definitions
from bc_attrvals.store import Store
from bc_attrvals.tables.files import FileError
from bc_attrvals.tables.rows import parse_id

_MOST_SHOWN = 5
#: What goes before a name of digits.
_NAME = "name:"


def id_or_name(text: str) -> int | str:
    """Return the attribute that a text names: digits are an id, all else is a name.

    `name:2024` is the name `2024`. Raises ValueError (`InvalidInputError`) for what can be neither.
    """
    if text.isascii() and text.isdigit():
        return check_id(parse_id(text), "attribute_id")
    return check_attribute_name(text.removeprefix(_NAME))


def shown_attribute(attribute: int | str) -> str:
    """Return the text that `id_or_name` reads as an attribute."""
    is_plain = isinstance(attribute, int) or id_or_name(attribute) == attribute
    return str(attribute) if is_plain else f"{_NAME}{attribute}"


async def attribute_names(store: Store) -> dict[int, str]:
    """Return the names of the store's attributes by id, by ascending id."""
    found = {one.id: one.name async for one in store.attributes.stream()}
    return dict(sorted(found.items()))


async def attribute_ids(
    store: Store, attributes: Mapping[str, int | str], where: str
) -> dict[str, int]:
    """Return the ids of attributes that are given by id or by exact name, under their columns.

    One call, or none if all are given by id. Raises `FileError` that begins with `where` for names
    that the store does not have, with the nearest ones, and for names that two attributes have.
    """
    if all(isinstance(one, int) for one in attributes.values()):
        return {column: one for column, one in attributes.items() if isinstance(one, int)}
    definitions = Definitions([one async for one in store.attributes.stream()])
    ids, problems = {}, []
    for column, given in attributes.items():
        try:
            ids[column] = given if isinstance(given, int) else definitions.get(given).id
        except UnknownAttributeError as error:
            near = [f"{error.name!r} (did you mean {one!r}?)" for one in error.nearest[:1]]
            problems.append(f"no attribute has the name {near[0]}" if near else str(error))
    if problems:
        more = f", and {len(problems) - _MOST_SHOWN} more" if len(problems) > _MOST_SHOWN else ""
        reasons = ", ".join(problems[:_MOST_SHOWN]) + more
        raise FileError(f"{where}: {reasons}; no value was sent")
    return ids
