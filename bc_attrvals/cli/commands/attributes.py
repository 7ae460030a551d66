"""`attributes`: the definitions of a store's attributes; list, make, rename and delete them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

from bc_attrvals.attributes import Attributes
from bc_attrvals.cli.attribute_names import id_or_name
from bc_attrvals.cli.console import confirm, need_terminal, print_result, refuse
from bc_attrvals.cli.job_runner import call_store
from bc_attrvals.cli.options import SuggestingGroup, examples, flag
from bc_attrvals.cli.settings import Settings, with_store_settings
from bc_attrvals.core.definitions import Attribute
from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.named_value import AttributeType
from bc_attrvals.naming.definitions import Definitions
from bc_attrvals.store import Store
from bc_attrvals.tables.error_text import counted, one_line

_TYPES = tuple(str(one) for one in AttributeType)


@click.group(
    cls=SuggestingGroup,
    epilog=examples(
        "bc-attrvals attributes list",
        'bc-attrvals attributes ensure "Loyalty tier=string" "Shoe size=number"',
        'bc-attrvals attributes rename "Loyalty tier" Tier',
        "bc-attrvals attributes delete Tier",
    ),
)
def attributes() -> None:
    """List, make, rename and delete the definitions of attributes.

    An ATTRIBUTE is an id or an exact name; digits are an id, and name:2024 is the name 2024. A
    store has 50 attributes at most.
    """


@attributes.command("list", epilog=examples("bc-attrvals attributes list --type number"))
@click.option("--name-like", metavar="TEXT", help="Those with this in their name.")
@click.option("--type", type=click.Choice(_TYPES), help="Those whose values have this type.")
@with_store_settings
def list_command(settings: Settings, name_like: str | None, type: str | None) -> None:
    """Print id, type and name of each attribute."""

    async def read(store: Store) -> list[Attribute]:
        stream = store.attributes.stream(name_like=name_like, type=type)
        return [attribute async for attribute in stream]

    _show(settings, "list", call_store(settings.store(), read))


@attributes.command(
    epilog=examples('bc-attrvals attributes ensure "Loyalty tier=string" "Shoe size=number"')
)
@click.argument("definitions", nargs=-1, required=True, metavar="NAME=TYPE...")
@with_store_settings
def ensure(settings: Settings, definitions: Sequence[str]) -> None:
    """Make the attributes NAME=TYPE... that are missing; TYPE is string, number or date.

    An attribute that exists with another type is an error, and then nothing is made: a type can't
    be changed.
    """
    types: dict[str, str] = {}
    for definition in definitions:
        # A name may hold the sign.
        name, _, kind = definition.rpartition("=")
        words = f"give NAME=TYPE, TYPE one of {', '.join(_TYPES)}; not {definition!r}"
        refuse(not name or kind not in _TYPES, words)
        refuse(name in types, f"{name!r} is given twice")
        types[name] = kind
    found = call_store(settings.store(), lambda store: store.attributes.ensure(types))
    _show(settings, "ensure", found.values())


@attributes.command(epilog=examples('bc-attrvals attributes rename "Loyalty tier" Tier'))
@click.argument("attribute")
@click.argument("name")
@with_store_settings
def rename(settings: Settings, attribute: str, name: str) -> None:
    """Give ATTRIBUTE the name NAME. Its values stay as they are."""

    async def change(store: Store) -> Attribute:
        (found,) = await _find(store.attributes, [attribute])
        return await store.attributes.rename(found.id, name)

    _show(settings, "rename", [call_store(settings.store(), change)])


@attributes.command(epilog=examples("bc-attrvals attributes delete Tier 7"))
@click.argument("names", nargs=-1, required=True, metavar="ATTRIBUTE...")
@flag("--yes", "Do not ask.")
@with_store_settings
def delete(settings: Settings, names: Sequence[str], *, yes: bool) -> None:
    """Delete each ATTRIBUTE... and all values that customers have for it.

    Shows how many values those are and asks first, unless --yes.
    """
    need_terminal(yes=yes, stdin_taken=False, what="deletes")
    store = settings.store()

    async def find(opened: Store) -> tuple[list[Attribute], int]:
        found = await _find(opened.attributes, names)
        ids = AttributeValueFilter(attribute_id_in=[one.id for one in found])
        return found, await opened.attribute_values.count(ids)

    found, values = call_store(store, find)
    shown = ", ".join(repr(one_line(one.name)) for one in found)
    what = counted(len(found), "attribute")
    if not yes:
        question = f"Delete {what} ({shown}) and {counted(values, 'value')} of customers?"
        confirm(question, "nothing was deleted")
    ids = [one.id for one in found]
    call_store(store, lambda opened: opened.attributes.delete(ids, with_values=True))
    text = f"Deleted {what} ({shown}) and {counted(values, 'value')}."
    fields = {"attributes": [_as_dict(one) for one in found], "values": values}
    settings.finish("attributes delete", text, fields)


async def _find(resource: Attributes, texts: Iterable[str]) -> list[Attribute]:
    """Return the definitions of ids and names, each once; raise where there is none."""
    definitions = Definitions([one async for one in resource.stream()])
    found: dict[int, Attribute] = {}
    for text in texts:
        attribute = definitions.find(id_or_name(text))
        if attribute is None:
            raise click.UsageError(f"there is no attribute {text!r}; see: attributes list")
        found[attribute.id] = attribute
    return list(found.values())


def _show(settings: Settings, command: str, definitions: Iterable[Attribute]) -> None:
    rows = [_as_dict(one) for one in definitions]
    if settings.json:
        settings.finish(f"attributes {command}", "", {"attributes": rows})
    for row in rows:
        print_result(f"{row['id']:>10}  {row['type']:<6}  {one_line(str(row['name']))}")


def _as_dict(attribute: Attribute) -> dict[str, object]:
    return {"id": attribute.id, "type": str(attribute.type), "name": attribute.name}
