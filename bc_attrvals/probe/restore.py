"""Keeps what the named values held, in a file, and puts it back.

The file is written before the first write and removed when all is proven to be as before, so it is
there after a kill at any moment. It is an object with `format`, `place` (base URL and path of the
store) and `rows`: `{"customer_id": …, "attribute_id": …, "value": …}`, the value null where there
was none. It holds customers' values, so only its owner may read it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from bc_attrvals.core.models import Key
from bc_attrvals.core.responses import SUCCESS, Response
from bc_attrvals.errors import (
    BCAttrValsError,
    FilterIgnoredError,
    InvalidInputError,
    RestoreError,
    UnconfirmedError,
)
from bc_attrvals.probe.answers import Row, error_of, read_rows
from bc_attrvals.probe.wire import Wire

_FORMAT: Final = "bc_attrvals probe state 1"
#: Times that the values are read; after each but the last, those that differ are written.
_LOOKS: Final = 4
#: An unanswered write is applied within this, or never.
_SETTLING_S: Final = 5.0
_MOST_SHOWN: Final = 5


class KeptRow(msgspec.Struct, frozen=True):
    """What one key held; None for no row."""

    customer_id: int
    attribute_id: int
    value: str | None


class KeptState(msgspec.Struct, frozen=True):
    """What the keys of a probe held before it."""

    place: str
    rows: list[KeptRow]
    format: str = _FORMAT


def kept_state(place: str, before: Mapping[Key, Row | None]) -> KeptState:
    """Return what the keys of `before` held, as the file holds it."""
    return KeptState(place, [KeptRow(*key, _value(row)) for key, row in before.items()])


def write_state(path: Path, state: KeptState) -> None:
    """Write a new file, and sync it to the disk.

    Raises `InvalidInputError` if it exists, because a probe that was not undone left it.
    """
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        message = (
            f"{path} exists: a probe was not undone, or is running; "
            f"bc-attrvals probe --restore {path}"
        )
        raise InvalidInputError(message, field="state") from None
    try:
        with os.fdopen(number, "wb") as file:
            file.write(msgspec.json.encode(state))
            file.flush()
            os.fsync(file.fileno())
        if os.name == "posix":
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def remove_state(path: Path) -> None:
    """Remove the file, because all is as it was. It blocks."""
    path.unlink(missing_ok=True)


def read_state(path: Path, place: str) -> KeptState:
    """Read a file; raises `InvalidInputError` for another file, and for one of another store."""
    try:
        state = msgspec.json.decode(path.read_bytes(), type=KeptState)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(f"{path}: no state of a probe: {error}", field="state") from None
    if state.format != _FORMAT:
        raise InvalidInputError(f"{path}: format must be {_FORMAT!r}", field="state")
    if state.place != place:
        message = f"{path} is of {state.place}, and the store is {place}"
        raise InvalidInputError(message, field="state")
    return state


async def read_key(wire: Wire, key: Key) -> Row | None:
    """Return the row of a key, None for none; an answer with other rows raises."""
    answer = await wire.get(f"customer_id:in={key[0]}&attribute_id:in={key[1]}")
    if answer.status not in SUCCESS:
        raise error_of(answer)
    rows = read_rows(answer)
    for row in rows:
        if row.key != key:
            message = "the store lists values of other customers or attributes than asked for"
            raise FilterIgnoredError(message, row_id=row.id)
    if len({row.id for row in rows}) > 1:
        raise UnconfirmedError("the store lists two values of one customer and attribute")
    return rows[0] if rows else None


async def restore(wire: Wire, state: KeptState) -> int:
    """Put back what the keys held, and return how many had to be written or deleted.

    Only keys that differ are written. All are read again afterwards; `RestoreError` names those
    that still differ, and the reason.
    """
    wire.begin_restoring()
    left = {(row.customer_id, row.attribute_id): row.value for row in state.rows}
    changed: set[Key] = set()
    reason = "the store holds other values after they were put back"
    try:
        if wire.has_unanswered:
            await wire.pause(_SETTLING_S)
        for attempt in range(_LOOKS):
            if attempt > 1:
                # The service may take a moment to show a write.
                await wire.pause(1.0)
            rows = {key: await read_key(wire, key) for key in left}
            left = {key: value for key, value in left.items() if _value(rows[key]) != value}
            if not left:
                return len(changed)
            if attempt == _LOOKS - 1:
                break
            changed |= left.keys()
            for key, value in left.items():
                answer = await _put_back(wire, key, value, rows[key])
                if answer.status not in SUCCESS:
                    reason = f"the store refused it: {error_of(answer)}"
    except BCAttrValsError as error:
        reason = str(error)
    raise RestoreError(f"{_named(left)} not restored: {reason}")


def _value(row: Row | None) -> str | None:
    return None if row is None else row.value


async def _put_back(wire: Wire, key: Key, value: str | None, row: Row | None) -> Response:
    if value is None:
        assert row is not None
        return await wire.delete([row.id])
    return await wire.put([{"customer_id": key[0], "attribute_id": key[1], "value": value}])


def _named(keys: Iterable[Key]) -> str:
    keys = list(keys)
    shown = ", ".join(f"customer {one[0]} attribute {one[1]}" for one in keys[:_MOST_SHOWN])
    return shown + (f" and {len(keys) - _MOST_SHOWN} more" if len(keys) > _MOST_SHOWN else "")
