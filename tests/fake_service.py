"""A model of the service in simulated time, behind the scheduler in place of a session.

Requests travel half the latency, are counted when they arrive, and are answered after the other
half. Written from the facts alone: fixed windows, a countdown in every answer, 429 with headers for
a spent quota and without them for load.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from random import Random

import attrs
from multidict import CIMultiDict, CIMultiDictProxy

from bc_attrvals.core.requests import Operation, Request
from bc_attrvals.core.responses import Response
from bc_attrvals.errors import ConnectionLostError

READ = Request(Operation.READ, "GET", "/values")
WRITE = Request(Operation.WRITE, "PUT", "/values", b"[]")
DELETE = Request(Operation.DELETE, "DELETE", "/values?id:in=1")


def ignore(body: bytes) -> bytes:
    return body


@attrs.define
class FakeService:
    """Answers requests as the service would; counts what it saw."""

    quota: int | None = None
    window_s: float = 30.0
    latency_s: float = 0.02
    jitter_s: float = 0.0
    granularity_ms: int = 1
    most_writes: int = 3
    #: Where the grid of windows begins, in the loop's time.
    offset_s: float = 0.0
    random: Random = attrs.field(factory=lambda: Random(1))
    #: Asked for each request that arrived and found its unit; returns a status, "drop" or None.
    fault: Callable[[Request], int | str | None] = lambda _: None
    seen: int = 0
    statuses: Counter[int | None] = attrs.field(factory=Counter)
    windows: Counter[int] = attrs.field(factory=Counter)
    in_flight: Counter[Operation] = attrs.field(factory=Counter)
    peaks: Counter[Operation] = attrs.field(factory=Counter)
    order: list[Request] = attrs.field(factory=list)

    def window(self) -> int:
        return math.floor((asyncio.get_running_loop().time() - self.offset_s) / self.window_s)

    def spend(self, units: int) -> None:
        """Another app spends units of this window."""
        assert self.quota is not None
        index = self.window()
        self.windows[index] = min(self.quota, self.windows[index] + units)

    def headers(self) -> dict[str, str]:
        if self.quota is None:
            return {}
        elapsed = asyncio.get_running_loop().time() - self.offset_s
        reset_ms = (self.window_s - elapsed % self.window_s) * 1000
        return {
            "X-Rate-Limit-Time-Window-Ms": str(int(self.window_s * 1000)),
            "X-Rate-Limit-Time-Reset-Ms": str(
                int(reset_ms // self.granularity_ms) * self.granularity_ms
            ),
            "X-Rate-Limit-Requests-Quota": str(self.quota),
            "X-Rate-Limit-Requests-Left": str(max(0, self.quota - self.windows[self.window()])),
        }

    async def send(self, request: Request, timeout_s: float) -> Response:
        operation = request.operation
        self.in_flight[operation] += 1
        self.peaks[operation] = max(self.peaks[operation], self.in_flight[operation])
        status: int | None = None
        try:
            await self._travel()
            self.seen += 1
            self.order.append(request)
            status, headers = self._arrive(request)
            await self._travel()
        finally:
            self.in_flight[operation] -= 1
            self.statuses[status] += 1
        if status is None:
            raise ConnectionLostError("dropped", may_have_been_applied=True)
        return Response(status, CIMultiDictProxy(CIMultiDict(headers)), b"")

    def _arrive(self, request: Request) -> tuple[int | None, dict[str, str]]:
        if self.quota is not None:
            if self.windows[self.window()] >= self.quota:
                return 429, self.headers()
            self.windows[self.window()] += 1
        if (
            request.operation is Operation.WRITE
            and self.in_flight[Operation.WRITE] > self.most_writes
        ):
            return 429, {}
        fault = self.fault(request)
        if fault == "drop":
            return None, {}
        if fault == 429:
            return 429, {}
        return (200 if fault is None else int(fault)), self.headers()

    async def _travel(self) -> None:
        await asyncio.sleep(self.latency_s / 2 + self.random.random() * self.jitter_s)
