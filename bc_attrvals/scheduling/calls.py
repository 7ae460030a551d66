"""The calls of one job: scheduler, request builder, options and tally in one bound object.

Between the readers and writers above and the scheduler below. Each job has one `Calls` and one
flow, so jobs share slots and quota evenly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextvars import Context
from copy import copy
from typing import Any, TypeVar

import attrs
import msgspec

from bc_attrvals.core.filters import AttributeValueFilter, ListingQuery
from bc_attrvals.core.limits import Limits
from bc_attrvals.core.models import AttributeValueUpsert, BarePage, Page
from bc_attrvals.core.rate_limit import QuotaSnapshot
from bc_attrvals.core.refusals import check_deleted
from bc_attrvals.core.requests import Operation, Request, RequestBuilder
from bc_attrvals.core.responses import Response, decode_bare_page, decode_page
from bc_attrvals.core.retry import RetryPolicy
from bc_attrvals.errors import DecodeError, UnconfirmedError
from bc_attrvals.events import EventBus
from bc_attrvals.scheduling.exchange import CallOptions, Exchange, Tally, Worker
from bc_attrvals.scheduling.learnt_sizes import LearntSizes
from bc_attrvals.scheduling.quota import Flow, Priority
from bc_attrvals.scheduling.scheduler import Scheduler

T = TypeVar("T")


class Fetched(msgspec.Struct, frozen=True):
    """A page that was answered and is not decoded yet."""

    query: ListingQuery
    exchange: Exchange
    answer: Response


class Calls:
    """The calls of one job, or of a view's single calls.

    Every call raises what `Scheduler.send` raises. Cancelling a read closes its connection. A
    cancelled write goes on only if it runs in a task of `start`.
    """

    __slots__ = (
        "_flow",
        "_options",
        "_priority",
        "_requests",
        "_scheduler",
        "_tally",
        "events",
        "sizes",
    )

    def __init__(
        self,
        scheduler: Scheduler,
        requests: RequestBuilder,
        options: CallOptions,
        *,
        events: EventBus,
        sizes: LearntSizes,
        priority: Priority = Priority.INTERACTIVE,
        flow: Flow | None = None,
        tally: Tally | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._requests = requests
        self._options = options
        self._priority = priority if options.priority is None else options.priority
        self._flow = flow
        self._tally = Tally() if tally is None else tally
        #: Where events of the job are reported.
        self.events = events
        #: The sizes of calls, which refusals of the service lower.
        self.sizes = sizes

    def __repr__(self) -> str:
        return f"<Calls {self._tally!r}>"

    def for_job(self, *, number: int | None = None) -> Calls:
        """Return the calls of a bulk job: the same options, with a new flow and a new tally.

        A part of a job is given the `number` of that job.
        """
        priority = self._options.priority
        return self._changed(
            _priority=Priority.BULK if priority is None else priority,
            _flow=Flow(),
            _tally=Tally(self._tally.job if number is None else number),
        )

    def next_job(self) -> int:
        """Return the number of a new job."""
        return self._scheduler.next_job()

    def of(self, requests: RequestBuilder) -> Calls:
        """Return the same job's calls of another resource; they share one tally."""
        return self._changed(_requests=requests)

    def once(self) -> Calls:
        """Return the same calls with a single try, for requests that are not idempotent.

        429s are still waited out. A caller may try again after a connection that could not be
        made, because nothing was applied then.
        """
        return self._with(attrs.evolve(self.retry, attempts=1))

    def for_parts(self) -> Calls:
        """Return the same job's calls for parts of a refused call, with fewer tries."""
        return self._with(self.retry.for_parts())

    def _with(self, retry: RetryPolicy) -> Calls:
        return self._changed(_options=msgspec.structs.replace(self._options, retry=retry))

    def _changed(self, **changes: object) -> Calls:
        calls = copy(self)
        for name, value in changes.items():
            setattr(calls, name, value)
        return calls

    @property
    def options(self) -> CallOptions:
        """The options of the Store's view that makes the calls."""
        return self._options

    @property
    def retry(self) -> RetryPolicy:
        """How failed requests are sent again."""
        return self._options.retry

    @property
    def limits(self) -> Limits:
        """The limits of the Store."""
        return self._scheduler.limits

    @property
    def calls(self) -> int:
        """Requests sent, each try counted."""
        return self._tally.calls

    @property
    def retries(self) -> int:
        """Requests that were sent again."""
        return self._tally.retries

    @property
    def job(self) -> int:
        """The number of the job; 0 for single calls."""
        return self._tally.job or 0

    @property
    def resource(self) -> str:
        """The path of the resource, which names the store and holds no secret."""
        return self._requests.resource

    def quota(self) -> QuotaSnapshot:
        """Return what is known of the store's quota now."""
        return self._scheduler.statistics().quota

    def latency_s(self) -> dict[Operation, float]:
        """Return how long calls took lately, by operation; see `Statistics`."""
        return self._scheduler.statistics().latency_s

    async def check_trust(self) -> None:
        """Raise `CertificateError` if no call could be made. For jobs that read much input first.

        It sends no request and is not counted as a call.
        """
        await self._scheduler.check_trust(self._options.timeout_s)

    # Reads.

    def queries(
        self, filter: AttributeValueFilter | None, spare_bytes: int = 0
    ) -> list[ListingQuery]:
        """Return the queries that list a filter, with room left for more parameters."""
        return self._requests.listing_queries(filter, spare_bytes)

    async def page(self, query: ListingQuery, number: int, limit: int) -> Page:
        """Fetch one page (from 1) of a query; see `decode`."""
        return await self.decode(await self.fetch(query, number, limit))

    async def fetch(self, query: ListingQuery, number: int, limit: int) -> Fetched:
        """Fetch one page and do not decode it, so that the next request can go out first."""
        exchange = self._exchange(self._requests.page(query.text, number, limit))
        return Fetched(query, exchange, await self._scheduler.send(exchange))

    async def decode(self, fetched: Fetched) -> Page:
        """Decode a page of `fetch`; fetch it again if it can't be read.

        Raises `FilterIgnoredError` if it has a row that its query did not ask for.
        """
        page = await self._decoded(fetched.exchange, fetched.answer, decode_page)
        fetched.query.check(page.data)
        return page

    async def bare_page(self, query: ListingQuery, number: int, limit: int) -> BarePage:
        """Fetch one page for a reader that needs only parts of rows, checked as by `decode`.

        A field that can't be read does not fail its row; see `BareRow`.
        """
        fetched = await self.fetch(query, number, limit)
        page = await self._decoded(fetched.exchange, fetched.answer, decode_bare_page)
        query.check(page.data)
        return page

    def parts(self, parameter: str, texts: Sequence[str]) -> list[list[str]]:
        """Return percent-encoded texts in parts that each fit into one URL."""
        return self._requests.queries_in(parameter, texts, min(self.sizes.look_up, self.sizes.page))

    async def rows(self, query: str, number: int, limit: int, decode: Callable[[bytes], T]) -> T:
        """Fetch one page (from 1) of a query of another resource."""
        return await self.sent(self._requests.page(query, number, limit), decode)

    # Writes.

    async def sent(
        self, request: Request, decode: Callable[[bytes], T], worker: Worker | None = None
    ) -> T:
        """Send a request and return its answer, decoded."""
        exchange = self._exchange(request, worker)
        return await self._decoded(exchange, await self._scheduler.send(exchange), decode)

    def put(
        self, items: Sequence[AttributeValueUpsert], worker: Worker
    ) -> Coroutine[Any, Any, Response]:
        """Upsert items in one PUT and return its answer, which may not confirm them."""
        return self._scheduler.send(self._exchange(self._requests.upsert(items), worker))

    def delete_parts(self, ids: Sequence[int], most: int) -> Iterator[tuple[Request, int]]:
        """Yield DELETEs for `ids`, each with the count of ids it names."""
        return self._requests.deletes(ids, most)

    async def delete(self, request: Request, worker: Worker | None = None) -> None:
        """Send one DELETE of `delete_parts`. A 2xx that does not confirm it is a failed try.

        Raises `UnconfirmedError` if no try is confirmed.
        """
        exchange = self._exchange(request, worker)
        answer = await self._scheduler.send(exchange)
        while True:
            try:
                check_deleted(answer.status, answer.body)
            except UnconfirmedError as error:
                unproven = error
            else:
                return
            answer = await self._scheduler.send_again(exchange, unproven)

    def start(
        self,
        coroutine: Coroutine[Any, Any, T],
        worker: Worker,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """Run writes in their own task, which keeps its slot if the caller is cancelled."""
        return self._scheduler.start(coroutine, worker, context)

    async def shielded(self, write: Callable[[Worker], Coroutine[Any, Any, T]]) -> T:
        """Do a single write. Cancelled, this returns at once and the write keeps its slot."""
        worker = Worker()
        task = self.start(write(worker), worker)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            worker.abandon()
            raise

    def _exchange(self, request: Request, worker: Worker | None = None) -> Exchange:
        if worker is not None:
            worker.has_failed = worker.was_sent = False
        return Exchange(request, self._options, self._priority, self._flow, self._tally, worker)

    async def _decoded(
        self, exchange: Exchange, answer: Response, decode: Callable[[bytes], T]
    ) -> T:
        while True:
            try:
                return decode(answer.body)
            except DecodeError as error:
                error.status, error.request_id = answer.status, answer.request_id
                unread = error
            answer = await self._scheduler.send_again(exchange, unread)
