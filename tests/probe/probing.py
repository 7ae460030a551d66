"""A sandbox, a clock that a probe's pauses move, and one probe of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs

from bc_attrvals.probe.facts import Facts, Unsettled
from bc_attrvals.probe.run import Probe
from bc_attrvals.probe.target import Target, find_attributes
from bc_attrvals.probe.wire import Wire
from bc_attrvals.sandbox import Quirks, Sandbox, StoredRow
from bc_attrvals.transport.session import Session

CUSTOMERS = {7: "Ann@example.org", 8: "Bob@example.org", 9: "cy@example.org"}
Question = Callable[[Target, Facts], Awaitable[None]]
ATTRIBUTES = {"Tier": "string", "Age": "number"}


class Clock:
    """Seconds since 1970 that pass in pauses only."""

    def __init__(self) -> None:
        self.now_s = 1_780_000_000.0

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        await asyncio.sleep(0)


@attrs.define
class Ground:
    """What a test probes, and a session on it."""

    sandbox: Sandbox
    session: Session
    clock: Clock
    folder: Path

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def wire(self, transport: object = None) -> Wire:
        return Wire(
            self.session if transport is None else transport,  # type: ignore[arg-type]
            self.sandbox.store_hash,
            self.sandbox.url,
            sleep=self.clock.sleep,
        )

    async def probe(
        self,
        customers: Sequence[int] = (7,),
        attributes: Sequence[int | str] = ("Tier",),
        transport: object = None,
    ) -> dict[str, Any]:
        """Probe, and return the document; it is in the file `facts.json` too."""
        wire = self.wire(transport)
        probe = await Probe.prepare(wire, customers, attributes, clock=self.clock)
        report = await probe.run(self.state, lambda _: None)
        text = json.dumps(report.to_dict())
        await asyncio.to_thread((self.folder / "facts.json").write_text, text)
        document: dict[str, Any] = json.loads(text)
        return document

    async def target(
        self, customers: Sequence[int] = (7,), *names: str | int, read: bool = True
    ) -> Target:
        """Return named values, and what they hold."""
        wire = self.wire()
        attributes, _ = await find_attributes(wire, names or ("Tier",))
        target = Target(wire, customers, attributes, self.clock)
        if read:
            await target.read_before()
        return target

    async def asked(
        self,
        question: Question,
        customers: Sequence[int] = (7,),
        facts: Facts | None = None,
        *,
        read: bool = True,
    ) -> tuple[Facts, str]:
        """Ask one question; return what is settled by then, and why the rest is not."""
        facts = facts or Facts()
        try:
            await question(await self.target(customers, read=read), facts)
        except Unsettled as reason:
            return facts, str(reason)
        return facts, ""

    async def held(self) -> list[tuple[object, ...]]:
        """Return all rows but for what a write of an equal value may move."""
        return [_kept(row) for row in await self.sandbox.rows()]


def _kept(row: StoredRow) -> tuple[object, ...]:
    return (row.id, row.customer_id, row.attribute_id, row.value, row.date_created_s)


@asynccontextmanager
async def ground(
    folder: Path, quirks: Quirks | None = None, **options: Any
) -> AsyncIterator[Ground]:
    """Serve a store with rows of others."""
    clock = Clock()
    options = {"quota": 100_000, "customers": CUSTOMERS, "attributes": ATTRIBUTES, **options}
    async with Sandbox(quirks=quirks or Quirks(), wall_clock=clock, **options) as sandbox:
        await sandbox.seed((9, attribute, f"other {attribute}") for attribute in range(3, 27))
        session = Session(
            sandbox.url, sandbox.access_token, user_agent="test", max_response_bytes=1 << 20
        )
        try:
            yield Ground(sandbox, session, clock, folder)
        finally:
            await session.aclose()
