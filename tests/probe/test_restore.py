"""What a probe wrote is put back: after errors, lies, cancellation and a kill at any call."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from bc_attrvals import (
    AuthenticationError,
    FilterIgnoredError,
    InvalidInputError,
    PermissionDeniedError,
    RestoreError,
    UnconfirmedError,
)
from bc_attrvals.core.requests import Request
from bc_attrvals.core.responses import Response
from bc_attrvals.probe.restore import KeptRow, KeptState, read_state, restore, write_state
from bc_attrvals.probe.wire import MOST_CALLS
from bc_attrvals.sandbox import Fault, Quirks
from bc_attrvals.transport.session import Session
from tests.probe.probing import ATTRIBUTES, Ground, ground

#: From the first write to the last deletion.
MOMENTS = (7, 8, 15, 33, 50, 70)


class Killed(BaseException):
    """The process is gone: nothing is sent any more."""


class Killing:
    """A transport that sends nothing after a call, which is applied or not."""

    def __init__(self, session: Session, at: int, *, applied: bool) -> None:
        self._session, self._at, self._applied = session, at, applied
        self._calls = 0

    async def send(self, request: Request, timeout_s: float) -> Response:
        self._calls += 1
        if self._calls < self._at:
            return await self._session.send(request, timeout_s)
        if self._calls == self._at and self._applied:
            await self._session.send(request, timeout_s)
        raise Killed


class Cancelling:
    """A transport that cancels the probe when a call is on its way."""

    def __init__(self, session: Session, at: int) -> None:
        self._session, self._at = session, at
        self._calls = 0
        self.probe: asyncio.Task[object] | None = None

    async def send(self, request: Request, timeout_s: float) -> Response:
        self._calls += 1
        if self._calls == self._at:
            assert self.probe is not None
            self.probe.cancel()
        return await self._session.send(request, timeout_s)


async def seeded(store: Ground) -> list[tuple[object, ...]]:
    """Give one of two probed customers a value, and return all that the store holds."""
    await store.sandbox.seed([(7, 1, "gold", 1_700_000_000)])
    return await store.held()


@pytest.mark.parametrize("applied", [True, False], ids=["applied", "not applied"])
@pytest.mark.parametrize("at", MOMENTS)
async def test_a_killed_probe_is_undone_by_its_state(
    at: int, applied: bool, tmp_path: Path
) -> None:
    async with ground(tmp_path) as store:
        before = await seeded(store)
        with pytest.raises(Killed):
            await store.probe((7, 8), transport=Killing(store.session, at, applied=applied))
        wire = store.wire()
        await restore(wire, read_state(store.state, wire.place))
        assert await store.held() == before
        assert await restore(wire, read_state(store.state, wire.place)) == 0


@pytest.mark.parametrize("at", MOMENTS)
async def test_a_cancelled_probe_restores_at_once(at: int, tmp_path: Path) -> None:
    async with ground(tmp_path) as store:
        before = await seeded(store)
        transport = Cancelling(store.session, at)
        transport.probe = asyncio.ensure_future(store.probe((7, 8), transport=transport))
        with pytest.raises(asyncio.CancelledError):
            await transport.probe
        assert await store.held() == before
        assert not store.state.exists()


@pytest.mark.parametrize("before_end", [0, 1, 2])
async def test_a_probe_that_is_cancelled_while_it_restores_goes_on_restoring(
    before_end: int, tmp_path: Path
) -> None:
    async with ground(tmp_path) as store:
        before = await seeded(store)
        await store.probe((7, 8))
        assert await store.held() == before
        count = len(store.sandbox.requests)
        transport = Cancelling(store.session, count - before_end)
        transport.probe = asyncio.ensure_future(store.probe((7, 8), transport=transport))
        with pytest.raises(asyncio.CancelledError):
            await transport.probe
        assert await store.held() == before
        assert not store.state.exists()


@pytest.mark.parametrize("kind", ["503=0.1", "drop_after=0.05", "cut_body=0.05", "502=0.1"])
async def test_a_store_in_trouble_is_restored_whatever_comes_of_the_probe(
    kind: str, tmp_path: Path
) -> None:
    async with ground(tmp_path, faults=[Fault.parse(kind)]) as store:
        before = await seeded(store)
        document = await store.probe((7, 8))
        assert await store.held() == before
    assert document["facts"]["max_items"]["value"] == 10


async def test_a_refused_first_write_is_raised_and_leaves_nothing(tmp_path: Path) -> None:
    async with ground(tmp_path, faults=[Fault.parse("403,operation=upsert")]) as store:
        before = await seeded(store)
        with pytest.raises(PermissionDeniedError):
            await store.probe((8,))
        assert await store.held() == before
        assert not store.state.exists()


async def test_a_wrong_token_is_raised_before_a_state_is_kept(tmp_path: Path) -> None:
    async with ground(tmp_path) as store:
        store.sandbox.access_token = "another"
        with pytest.raises(AuthenticationError):
            await store.probe()
        assert not store.state.exists()


async def test_a_store_that_confirms_and_stores_nothing_is_not_asked_further(
    tmp_path: Path,
) -> None:
    async with ground(tmp_path, faults=[Fault.parse("200,operation=upsert,applied=no")]) as store:
        before = await seeded(store)
        with pytest.raises(UnconfirmedError, match="does not hold"):
            await store.probe((8,))
        assert await store.held() == before
        assert store.sandbox.calls["upsert"] < 6


async def test_a_store_that_confirms_and_deletes_nothing_is_named_and_can_be_restored(
    tmp_path: Path,
) -> None:
    async with ground(tmp_path, faults=[Fault.parse("204,operation=delete,applied=no")]) as store:
        before = await seeded(store)
        with pytest.raises(RestoreError, match="customer 8 attribute 1 not restored"):
            await store.probe((8,))
        assert await store.held() != before
        store.sandbox.faults.clear()
        wire = store.wire()
        assert await restore(wire, read_state(store.state, wire.place)) == 1
        assert await store.held() == before


async def test_twelve_values_are_put_back_within_the_bound(tmp_path: Path) -> None:
    attributes = {**ATTRIBUTES, "Born": "date", "Colour": "string"}
    async with ground(tmp_path, attributes=attributes) as store:
        before = await seeded(store)
        document = await store.probe((7, 8, 9), tuple(attributes))
        assert await store.held() == before
    assert (document["keys"], document["facts"]["max_items"]["value"]) == (12, 10)
    assert document["calls"] <= MOST_CALLS


async def test_a_value_that_could_not_be_put_back_is_left_alone(tmp_path: Path) -> None:
    async with ground(tmp_path, Quirks(check_value_types=True)) as store:
        await store.sandbox.seed([(7, 2, "forty", 1_700_000_000)])
        before = await store.sandbox.rows()
        with pytest.raises(UnconfirmedError, match="could not be put back: 422"):
            await store.probe((7,), ("Tier", "Age"))
        assert await store.sandbox.rows() == before
        assert not store.state.exists()


async def test_a_refusal_while_restoring_is_reported(tmp_path: Path) -> None:
    async with ground(tmp_path) as store:
        wire = store.wire()
        state = KeptState(wire.place, [KeptRow(77, 1, "gold"), KeptRow(7, 1, "silver")])
        with pytest.raises(RestoreError, match=r"customer 77 attribute 1 .* does not exist"):
            await restore(wire, state)
        assert (await store.sandbox.values())[7, 1] == "silver"


async def test_rows_of_others_are_never_taken_for_the_named_one(tmp_path: Path) -> None:
    class Lying:
        """Answers a question for one value with another's."""

        def __init__(self, session: Session) -> None:
            self._session = session

        async def send(self, request: Request, timeout_s: float) -> Response:
            path = request.path.replace("customer_id:in=8", "customer_id:in=9")
            path = path.replace("attribute_id:in=1", "attribute_id:in=3")
            lie = Request(request.operation, request.method, path, request.body)
            return await self._session.send(lie, timeout_s)

    async with ground(tmp_path) as store:
        before = await store.sandbox.rows()
        with pytest.raises(FilterIgnoredError, match="other customers"):
            await store.probe((8,), transport=Lying(store.session))
        assert await store.sandbox.rows() == before
        assert not store.state.exists()


def test_a_state_is_written_once_and_read_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "state"
    state = KeptState("https://api/stores/x", [KeptRow(7, 1, "gold"), KeptRow(7, 2, None)])
    write_state(path, state)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_state(path, state.place) == state
    with pytest.raises(InvalidInputError, match="probe --restore"):
        write_state(path, state)
    assert read_state(path, state.place) == state


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "missing required field"),
        ("nonsense", "no state of a probe"),
        (json.dumps({"format": "x", "place": "here", "rows": []}), "format must be"),
        (
            json.dumps({"format": "bc_attrvals probe state 1", "place": "there", "rows": []}),
            "is of there, and the store is here",
        ),
    ],
)
def test_another_file_or_store_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text(content)
    with pytest.raises(InvalidInputError, match=message):
        read_state(path, "here")
