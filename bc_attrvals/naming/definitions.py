"""Reads the definitions of a store's attributes: all of them, because there are at most 50."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Final

from bc_attrvals.core.definitions import Attribute, decode_attributes
from bc_attrvals.errors import ListingDriftError, UnknownAttributeError
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.scheduling.learnt_sizes import DEFAULT_PAGE_SIZE

#: "A store can have a maximum of 50 customer attributes" (BigCommerce reference, Customer
#: Attributes).
MAX_ATTRIBUTES: Final = 50
#: Pages after which the service's counters are not believed.
_MOST_PAGES: Final = 20
#: A job whose names are missing reads the definitions anew at most this often.
_READ_AGAIN_S: Final = 60.0


async def list_definitions(calls: Calls, query: str = "") -> list[Attribute]:
    """Return the definitions of a query; `calls` are those of the resource.

    Raises `ListingDriftError` where fewer came than the service says there are.
    """
    found: dict[int, Attribute] = {}
    for number in range(1, _MOST_PAGES + 1):
        page = await calls.rows(query, number, DEFAULT_PAGE_SIZE, decode_attributes)
        before = len(found)
        found.update((row.id, row) for row in page.data)
        if len(found) >= page.total:
            return list(found.values())
        if len(found) == before:
            break
    message = "the definitions of the attributes could not be listed to their end"
    raise ListingDriftError(message)


def nearest_names(name: str, names: Sequence[str]) -> list[str]:
    """Return up to three of the names that are most like one that does not exist."""
    by_lower = {one.strip().lower(): one for one in names}
    matches = get_close_matches(name.strip().lower(), by_lower, n=3, cutoff=0.6)
    return [by_lower[match] for match in matches]


class Definitions:
    """The definitions of a store at one moment, by name and by id."""

    def __init__(self, definitions: Sequence[Attribute]) -> None:
        self._by_id: Mapping[int, Attribute] = {one.id: one for one in definitions}
        self._by_name: dict[str, list[Attribute]] = {}
        for one in definitions:
            self._by_name.setdefault(one.name, []).append(one)

    def find(self, name_or_id: int | str) -> Attribute | None:
        """Return the definition of an exact name or an id, None if there is none.

        Raises `UnknownAttributeError` for a name that two definitions have.
        """
        if isinstance(name_or_id, int):
            return self._by_id.get(name_or_id)
        found = self._by_name.get(name_or_id, [])
        if len(found) > 1:
            ids = ", ".join(str(one.id) for one in found)
            message = f"two definitions have the name {name_or_id!r} (ids {ids}); use the id"
            raise UnknownAttributeError(message, name=name_or_id)
        return found[0] if found else None

    def lack_any(self, names_and_ids: Iterable[int | str]) -> bool:
        """Return whether any of the names and ids has no definition."""
        return any(one not in self._by_id and one not in self._by_name for one in names_and_ids)

    def get(self, name_or_id: int | str) -> Attribute:
        """Return the definition of an exact name or an id, or raise `UnknownAttributeError`."""
        found = self.find(name_or_id)
        if found is not None:
            return found
        if isinstance(name_or_id, int):
            message = f"no attribute has the id {name_or_id}"
            raise UnknownAttributeError(message, name=str(name_or_id))
        message = f"no attribute has the name {name_or_id!r}"
        nearest = nearest_names(name_or_id, list(self._by_name))
        raise UnknownAttributeError(message, name=name_or_id, nearest=nearest)


class KnownDefinitions:
    """The definitions that a Store has read last, until it changes one itself.

    What others change is seen when a name or an id is missing. `calls` are those of the resource.
    """

    def __init__(self) -> None:
        self._known: Definitions | None = None
        self._read_at_s = 0.0
        #: Changes so far; what was read across one is not remembered.
        self._changes = 0
        self._reading = asyncio.Lock()

    def forget(self) -> None:
        """Read them anew when they are next needed: one was made, renamed or deleted."""
        self._known = None
        self._changes += 1

    async def read(self, calls: Calls) -> list[Attribute]:
        """Read all anew, remember them, and return them in the service's order."""
        changes, began_at_s = self._changes, asyncio.get_running_loop().time()
        found = await list_definitions(calls)
        if self._changes == changes:
            self._known, self._read_at_s = Definitions(found), began_at_s
        return found

    async def get(
        self, calls: Calls, names_and_ids: Iterable[int | str], job_began_at_s: float
    ) -> Definitions:
        """Return those that were read last.

        They are read anew where one of the names and ids is missing, unless they were read since
        the job began and within the last minute.
        """
        # One reading, however many jobs begin at once.
        async with self._reading:
            known = self._known
            if known is not None:
                age_s = asyncio.get_running_loop().time() - self._read_at_s
                is_fresh = self._read_at_s >= job_began_at_s and age_s < _READ_AGAIN_S
                if is_fresh or not known.lack_any(names_and_ids):
                    return known
            return Definitions(await self.read(calls))
