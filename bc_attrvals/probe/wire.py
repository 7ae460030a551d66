"""Sends a probe's requests one after the other, and keeps the answers.

Every answer is returned whatever its status, because the status is what is asked about. The number
of tries is bounded, and a part of the bound is reserved for the restoring.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

from bc_attrvals.core.rate_limit import read_quota_headers, read_retry_after_s
from bc_attrvals.core.requests import Operation, Request, RequestBuilder, Resource
from bc_attrvals.core.responses import SUCCESS, Response
from bc_attrvals.core.retry import ends_job
from bc_attrvals.errors import BCAttrValsError, TransportError
from bc_attrvals.probe.answers import error_of
from bc_attrvals.probe.facts import Unsettled
from bc_attrvals.scheduling.scheduler import Transport

#: Calls of the questions; then those of the restoring.
_MOST_ASKING: Final = 120
_MOST_RESTORING: Final = 60
MOST_CALLS: Final = _MOST_ASKING + _MOST_RESTORING
_TIMEOUT_S: Final = 30.0
_TRIES: Final = 5
#: A write's 500 that repeats is an answer: some servers refuse a bad item with it.
_TRIES_OF_500: Final = 2
_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})


class Wire:
    """The requests of one probe of one store.

    Every call raises `TransportError` or `DecodeError` after the tries, the error of a status that
    ends all (401, 404, a suspended store, a redirect), and `Unsettled` where the bound is reached.
    """

    def __init__(
        self,
        transport: Transport,
        store_hash: str,
        base_url: str,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._transport = transport
        self._paths = {one: RequestBuilder(store_hash, base_url, one).resource for one in Resource}
        #: Sleeps for some seconds.
        self.pause = sleep
        self._clock = asyncio.get_running_loop().time
        self._most = _MOST_ASKING
        self._opens_at_s = 0.0
        #: Which store, as a kept state names it.
        self.place = f"{base_url}{self._paths[Resource.ATTRIBUTE_VALUES]}"
        self.calls = 0
        #: Whether a write got no answer, so that it may be applied later.
        self.has_unanswered = False
        #: All answers; their headers show facts, too.
        self.answers: list[Response] = []

    def begin_restoring(self) -> None:
        """Allow the calls that are kept for the restoring."""
        self._most = self.calls + _MOST_RESTORING

    async def get(self, query: str, resource: Resource = Resource.ATTRIBUTE_VALUES) -> Response:
        """Read; the query is sent as it stands."""
        path = self._paths[resource]
        return await self._send(Request(Operation.READ, "GET", f"{path}?{query}"))

    async def put(self, items: Sequence[Mapping[str, object]]) -> Response:
        """Upsert items, as they stand."""
        body = msgspec.json.encode(items)
        path = self._paths[Resource.ATTRIBUTE_VALUES]
        return await self._send(Request(Operation.WRITE, "PUT", path, body))

    async def delete(self, ids: Sequence[int]) -> Response:
        """Delete rows; refuses a call without ids."""
        assert ids
        path = f"{self._paths[Resource.ATTRIBUTE_VALUES]}?id:in={','.join(map(str, ids))}"
        return await self._send(Request(Operation.DELETE, "DELETE", path))

    async def _send(self, request: Request) -> Response:
        tries = 0
        while True:
            wait_s = self._opens_at_s - self._clock()
            if wait_s > 0:
                await self.pause(wait_s)
                self._opens_at_s = 0.0
            if self.calls >= self._most:
                raise Unsettled(f"the bound of {self._most} calls was reached before")
            self.calls += 1
            tries += 1
            try:
                answer = await self._send_once(request)
            except TransportError as error:
                if tries == _TRIES or not error.retryable:
                    raise
                await self.pause(2.0 ** (tries - 1))
                continue
            self.answers.append(answer)
            known = read_quota_headers(answer.headers)
            if known is not None and known.left < 1:
                # A margin: the window may open a little later than the header says.
                self._opens_at_s = self._clock() + known.reset_s + 0.05
            is_write = request.operation is Operation.WRITE
            most = _TRIES_OF_500 if is_write and answer.status == 500 else _TRIES
            if answer.status not in _PASSING or tries == most:
                return _checked(request, answer)
            asked_s = read_retry_after_s(answer.headers, 0.0)
            await self.pause(2.0 ** (tries - 1) if asked_s is None else asked_s)

    async def _send_once(self, request: Request) -> Response:
        if request.operation is Operation.READ:
            return await self._transport.send(request, _TIMEOUT_S)
        task = asyncio.ensure_future(self._transport.send(request, _TIMEOUT_S))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # A write under way must end before its value is put back.
            await asyncio.wait({task})
            if task.cancelled() or task.exception() is not None:
                self.has_unanswered = True
            raise
        except BCAttrValsError:
            self.has_unanswered = True
            raise


def _checked(request: Request, answer: Response) -> Response:
    """Return an answer about its request; raise one that would be the same for all requests."""
    if answer.status not in SUCCESS:
        error = error_of(answer, request.method, request.resource)
        if ends_job(error) or answer.status in {429, 502, 503, 504}:
            raise error
    return answer
