"""The values that a probe may write, and how the questions read and write them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date, timedelta
from typing import Final

import attrs

from bc_attrvals.core.models import Key
from bc_attrvals.core.requests import Resource
from bc_attrvals.core.responses import SUCCESS, Response
from bc_attrvals.errors import (
    DecodeError,
    InvalidInputError,
    PermissionDeniedError,
    UnknownAttributeError,
)
from bc_attrvals.probe.answers import Row, accepted, error_of, read_listing, read_rows
from bc_attrvals.probe.facts import Unsettled
from bc_attrvals.probe.restore import read_key
from bc_attrvals.probe.wire import Wire

#: Values a probe may write; each costs calls to read and to put back.
MOST_KEYS: Final = 12
_MOST_PAGES: Final = 10
#: A store may take a moment to show a write.
_MORE_LOOKS: Final = 2
_FIRST_DAY: Final = date(2001, 1, 1)


@attrs.frozen
class Attribute:
    """One named attribute; name and type are None without a definition."""

    id: int
    name: str | None = None
    type: str | None = None


async def find_attributes(
    wire: Wire, given: Sequence[int | str]
) -> tuple[list[Attribute], bool | None]:
    """Return the attributes of ids and names, and whether their listing has pagination.

    An id stands for itself where definitions may not be read, or where there are none. Raises
    `UnknownAttributeError` for a name or an id that is not there, or a name that two have, and
    `PermissionDeniedError` for a name where definitions may not be read.
    """
    found: dict[int, Attribute] = {}
    has_pagination: bool | None = None
    try:
        for page in range(1, _MOST_PAGES + 1):
            # Without a limit: even the default may be above the largest page.
            answer = await wire.get(f"page={page}", Resource.ATTRIBUTES)
            if answer.status not in SUCCESS:
                raise error_of(answer)
            listing = read_listing(answer)
            if page == 1:
                has_pagination = bool(listing.pagination)
            rows = [Attribute(one["id"], one["name"], one["type"]) for one in listing.objects]
            known = len(found)
            found.update((one.id, one) for one in rows)
            if len(found) == known or len(found) == listing.number("total"):
                break
    except PermissionDeniedError:
        if any(isinstance(one, str) for one in given):
            raise
    except KeyError:
        pass
    return [_named(found, one) for one in given], has_pagination


def _named(found: Mapping[int, Attribute], given: int | str) -> Attribute:
    if isinstance(given, int) and (given in found or not found):
        return found.get(given, Attribute(given))
    named = [one for one in found.values() if given == one.name]
    if len(named) == 1:
        return named[0]
    how = "two attributes have the name" if named else "there is no attribute"
    raise UnknownAttributeError(f"{how} {given!r}", name=str(given))


@attrs.define(eq=False)
class Target:
    """The named values, the only ones that a probe writes to."""

    wire: Wire
    customers: Sequence[int]
    attributes: Sequence[Attribute]
    clock: Callable[[], float]
    #: The values that are written, the first customer's first.
    keys: list[Key] = attrs.field(init=False)
    before: dict[Key, Row | None] = attrs.field(factory=dict, init=False)
    #: For each write of a new value, date_modified minus the time of the answer.
    offsets_s: list[float] = attrs.field(factory=list, init=False)
    _written: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        """Check how many values are named."""
        self.keys = [(customer, one.id) for customer in self.customers for one in self.attributes]
        if not 0 < len(self.keys) <= MOST_KEYS:
            message = f"customers times attributes must be 1 to {MOST_KEYS}, not {len(self.keys)}"
            raise InvalidInputError(message, field="customers")

    @property
    def main(self) -> Key:
        """The value that most questions are asked on: one that was not there, if there is one."""
        return next((key for key in self.keys if self.before.get(key) is None), self.keys[0])

    @property
    def is_scratch(self) -> bool:
        """Whether the main value was not there, so that it may be deleted."""
        return self.before.get(self.main) is None

    def kind(self, key: Key) -> str | None:
        """Return the type of a key's attribute."""
        return next(one.type for one in self.attributes if one.id == key[1])

    def key_of_kind(self, *kinds: str) -> Key | None:
        """Return a key of one of the types, the main key if possible; None if there is none."""
        return next((key for key in (self.main, *self.keys) if self.kind(key) in kinds), None)

    async def read_before(self) -> None:
        """Read what all keys hold.

        A key whose value has blanks around it is left out: a store that trims values could not take
        it back. Raises `InvalidInputError` if no other is named.
        """
        self.before = {key: await read_key(self.wire, key) for key in self.keys}
        for key, row in list(self.before.items()):
            if row is not None and row.value != row.value.strip():
                self.keys.remove(key)
                del self.before[key]
        if not self.keys:
            message = "each value that is named has blanks around it, which a store may remove"
            raise InvalidInputError(message, field="customers")

    def fresh(self, key: Key) -> str:
        """Return a value that was not written before, and that the key's type holds."""
        self._written += 1
        kind, number = self.kind(key), self._written
        if kind == "number":
            return str(1000 + number)
        if kind == "date":
            return (_FIRST_DAY + timedelta(days=number)).isoformat()
        return f"probe {number}"

    def fresh_items(self, keys: Iterable[Key]) -> list[dict[str, object]]:
        """Return items of a PUT with fresh values."""
        return [item(key, self.fresh(key)) for key in keys]

    async def put(self, key: Key, value: object) -> Response:
        """Write one value, valid or not, and return the answer whatever its status."""
        began_s = self.clock()
        answer = await self.wire.put([item(key, value)])
        now_s = self.clock()
        # A call that was sent again may have been applied long before.
        if answer.status in SUCCESS and now_s - began_s < 1:
            row = echo_of(answer, key)
            if row is not None and row.modified is not None:
                self.offsets_s.append(row.modified.timestamp() - now_s)
        return answer

    async def read(self, key: Key, wanted: str | None = None) -> Row | None:
        """Return what a key holds. It is read up to twice more while it is not `wanted`."""
        row = await read_key(self.wire, key)
        for _ in range(_MORE_LOOKS):
            if wanted is None or (row is not None and row.value == wanted):
                break
            await self.wire.pause(0.5)
            row = await read_key(self.wire, key)
        return row

    async def stored(self, key: Key, value: object) -> Row | None:
        """Write a value and return what is stored then; None for no row.

        Raises `Unsettled` with the status if it is refused.
        """
        answer = accepted(await self.put(key, value), "a value")
        echo = echo_of(answer, key)
        return await self.read(key, None if echo is None else echo.value)

    async def ensure(self) -> Row:
        """Return the main row, written anew if it is not there."""
        row = await self.read(self.main) or await self.stored(self.main, self.fresh(self.main))
        if row is None:
            raise Unsettled("the value could not be written again")
        return row


def item(key: Key, value: object) -> dict[str, object]:
    """Return an item of a PUT."""
    return {"customer_id": key[0], "attribute_id": key[1], "value": value}


def echo_of(answer: Response, key: Key) -> Row | None:
    """Return the row of a key in the answer of a PUT, if it is there and can be read."""
    with suppress(DecodeError):
        return next((row for row in read_rows(answer) if row.key == key), None)
    return None
