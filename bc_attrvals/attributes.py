"""The definitions of a store's attributes: name ↔ id, and the type of their values.

`Store.attributes`. On the same scheduler, quota, slots and retries as the values. Every method
raises `StoreStateError` when the Store is not open in the running loop, and besides the errors it
names any of `APIError`, `TransportError` and `DecodeError` after the tries of the retry policy.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from functools import partial
from random import Random
from typing import Final
from urllib.parse import quote

from bc_attrvals.core.arguments import checked_list
from bc_attrvals.core.definitions import Attribute
from bc_attrvals.core.models import check_id
from bc_attrvals.core.named_value import AttributeType, check_attribute_name
from bc_attrvals.core.outcomes import DeleteReport
from bc_attrvals.core.requests import Operation, Request, RequestBuilder
from bc_attrvals.errors import (
    AttributeTypeError,
    BCAttrValsError,
    InvalidInputError,
    PayloadTooLargeError,
    UnconfirmedError,
    UnprocessableError,
)
from bc_attrvals.naming.definitions import (
    MAX_ATTRIBUTES,
    Definitions,
    KnownDefinitions,
    list_definitions,
)
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.scheduling.exchange import Worker

#: Definitions in one POST; the service's limit is not documented, and a store has 50 at most.
_MOST_AT_ONCE: Final = 10


class Attributes:
    """The definitions of one store; get it as `Store.attributes`."""

    __slots__ = ("_calls", "_ensure_open", "_known", "_requests")

    def __init__(
        self,
        calls: Calls,
        requests: RequestBuilder,
        *,
        ensure_open: Callable[[], None],
        known: KnownDefinitions,
    ) -> None:
        self._calls = calls.of(requests)
        self._requests = requests
        self._ensure_open = ensure_open
        self._known = known

    async def get(self, name_or_id: str | int) -> Attribute | None:
        """Return the definition of an exact name (a str) or an id, None if there is none.

        The definitions are listed anew, in one call for most stores. Raises `InvalidInputError` for
        what is neither, and `UnknownAttributeError` for a name that two definitions have.
        """
        self._ensure_open()
        if isinstance(name_or_id, str):
            check_attribute_name(name_or_id, "name_or_id")
        else:
            check_id(name_or_id, "name_or_id")
        return Definitions(await self._known.read(self._calls)).find(name_or_id)

    async def stream(
        self,
        *,
        name: str | None = None,
        name_like: str | None = None,
        type: AttributeType | str | None = None,
    ) -> AsyncGenerator[Attribute]:
        """Yield definitions in the service's order: all of them, or those that match.

        `name` is exact; `name_like` is the service's `name:like`; `type` is string, number or date.
        All of them are read before the first is yielded (a store has 50 at most). What the service
        answers beyond `name` and `type` is left out.
        """
        self._ensure_open()
        query: list[str] = []
        if name is not None:
            query.append(f"name={quote(check_attribute_name(name, 'name'), safe='')}")
        if name_like is not None:
            query.append(
                f"name:like={quote(check_attribute_name(name_like, 'name_like'), safe='')}"
            )
        kind = None if type is None else _checked_type(type, "type")
        if kind is not None:
            query.append(f"type={kind}")
        if query:
            found = await list_definitions(self._calls, "&".join(query))
        else:
            found = await self._known.read(self._calls)
        for attribute in found:
            if name in (None, attribute.name) and kind in (None, attribute.type):
                yield attribute

    async def ensure(self, types: Mapping[str, AttributeType | str]) -> dict[str, Attribute]:
        """Return the definitions of names, after making those that are missing.

        `types` maps exact names (1 to 255 characters) to `string`, `number` or `date`. The result
        has the same keys in the same order. Running it again changes nothing.

        Raises, before anything is sent, `InvalidInputError` for a name or a type; before anything
        is made, `AttributeTypeError` where a definition exists with another type (a type can't be
        changed), `UnknownAttributeError` for a name that two definitions have, and
        `InvalidInputError` where the store would have more than 50. After a call that got no answer
        the definitions are listed again, so none is made twice. Raises `UnconfirmedError` where the
        service accepts a definition and does not list it. Cancelled, some may have been made.
        """
        self._ensure_open()
        wanted = _checked_types(types)
        size, failures = _MOST_AT_ONCE, 0
        accepted: set[str] = set()
        while True:
            listed = await self._known.read(self._calls)
            found = _matching(Definitions(listed), wanted)
            missing = [name for name in wanted if name not in found]
            if not missing:
                return {name: found[name] for name in wanted}
            if len(listed) + len(missing) > MAX_ATTRIBUTES:
                message = (
                    f"{len(missing)} attributes are missing and the store has {len(listed)}; "
                    f"it can have {MAX_ATTRIBUTES}"
                )
                raise InvalidInputError(message, field="types")
            try:
                if unlisted := [name for name in missing if name in accepted]:
                    # Not made again: the listing may be an old one, from a cache.
                    message = f"accepted, yet not listed: {', '.join(map(repr, unlisted))}"
                    raise UnconfirmedError(message)
                new = [{"name": name, "type": wanted[name]} for name in missing]
                for start in range(0, len(new), size):
                    # Sent once: it is not idempotent.
                    request = self._requests.post(new[start : start + size])
                    post = partial(self._change, self._calls.once(), request)
                    await self._calls.shielded(post)
                    accepted.update(missing[start : start + size])
            except (UnprocessableError, PayloadTooLargeError):
                if size == 1 or len(missing) == 1:
                    raise
                # A beta took one at a time: "Max batch size allowed is 1".
                size = 1
            except BCAttrValsError as error:
                failures += 1
                retry = self._calls.retry
                delay_s = retry.delay_s(error, failures, Operation.WRITE, Random())  # noqa: S311
                if delay_s is None:
                    raise
                await asyncio.sleep(delay_s)

    async def rename(self, attribute_id: int, name: str) -> Attribute:
        """Give an attribute another name, and return its definition. Values keep their attribute.

        Raises `InvalidInputError` for an id or a name, and `UnconfirmedError` where the service
        answers with success and the definition still has its old name. On cancellation the call may
        have been applied.
        """
        self._ensure_open()
        check_id(attribute_id, "attribute_id")
        check_attribute_name(name, "name")
        request = self._requests.put([{"id": attribute_id, "name": name}])
        await self._calls.shielded(partial(self._change, self._calls, request))
        found = Definitions(await self._known.read(self._calls)).find(attribute_id)
        if found is None or found.name != name:
            message = f"the attribute {attribute_id} was not renamed, though the service said so"
            raise UnconfirmedError(message)
        return found

    async def delete(self, ids: Iterable[int], *, with_values: bool = False) -> DeleteReport:
        """Delete definitions by id, and with them all values that customers have for them.

        Refused unless `with_values=True`. The report counts the ids that are gone. Ids that do not
        exist are no error. Raises `InvalidInputError` for no ids or an entry that is no id, and
        `UnconfirmedError` where some are still there afterwards.
        """
        self._ensure_open()
        ids = checked_list("ids", ids, check_id)
        if not ids:
            raise InvalidInputError("ids must name at least one attribute", field="ids")
        if not with_values:
            message = "the values of an attribute are deleted with it; say with_values=True"
            raise InvalidInputError(message, field="with_values")
        calls = self._calls.for_job()
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        for request, _ in calls.delete_parts(ids, calls.sizes.delete):
            await calls.shielded(partial(self._change, calls, request))
        left = {one.id for one in await self._known.read(calls)}.intersection(ids)
        if left:
            numbers = ", ".join(map(str, sorted(left)))
            raise UnconfirmedError(f"attributes are still there after deleting them: {numbers}")
        seconds = loop.time() - began_at
        return DeleteReport(len(set(ids)), calls.calls, calls.retries, seconds)

    async def _change(self, calls: Calls, request: Request, worker: Worker) -> None:
        """Send a change; what it did is seen in the listing that follows, not in its answer."""
        try:
            await calls.sent(request, _ignore, worker)
        finally:
            # It may have been applied without an answer, or after its caller was cancelled.
            self._known.forget()


def _matching(
    definitions: Definitions, wanted: Mapping[str, AttributeType]
) -> dict[str, Attribute]:
    """Return the definitions that are there; raise `AttributeTypeError` for one of another type."""
    found = {name: one for name in wanted if (one := definitions.find(name)) is not None}
    for name, one in found.items():
        if one.type != wanted[name]:
            message = f"the attribute {name!r} is a {one.type}, not a {wanted[name]}"
            raise AttributeTypeError(message, name=name)
    return found


def _checked_types(types: Mapping[str, AttributeType | str]) -> dict[str, AttributeType]:
    if not isinstance(types, Mapping):
        message = f"types must map names to types, not be {type(types).__name__}"
        raise InvalidInputError(message, field="types")
    return {
        check_attribute_name(name, "types", f"types[{name!r}]"): _checked_type(
            kind, "types", f"types[{name!r}]"
        )
        for name, kind in types.items()
    }


def _checked_type(
    value: AttributeType | str, field: str, place: str | None = None
) -> AttributeType:
    try:
        return AttributeType(value)
    except ValueError:
        message = f"{field} must be string, number or date, not {value!r}"
        raise InvalidInputError(message, field=field, place=place) from None


def _ignore(body: bytes) -> None:
    """Read nothing: what was done is seen in the listing that follows."""
    del body
