"""The resource: typed coroutines, streams and bulk writes over customer attribute values.

Single calls go before bulk ones (`Priority.INTERACTIVE` and `Priority.BULK`), unless a view made by
`Store.with_options` says otherwise. Every method raises `StoreStateError` when the Store is not
open in the running loop, and besides the errors it names any of `APIError`, `TransportError` and
`DecodeError` after the tries of the retry policy.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing, nullcontext
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING

from bc_attrvals.core.arguments import check_range, listed
from bc_attrvals.core.filters import AttributeValueFilter, check_filter
from bc_attrvals.core.limits import MAX_BATCH_SIZE, MAX_PAGE_SIZE
from bc_attrvals.core.models import (
    AttributeValue,
    AttributeValueUpsert,
    BarePage,
    Page,
    Pagination,
    check_id,
)
from bc_attrvals.errors import BCAttrValsError, InvalidInputError, ListingDriftError
from bc_attrvals.reading.pager import pages
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.scheduling.job_events import BulkJob
from bc_attrvals.scheduling.learnt_sizes import DEFAULT_PAGE_SIZE
from bc_attrvals.sync.resource_methods import MOST_FAILURES, SyncMethods
from bc_attrvals.sync.shared_by_jobs import SharedByJobs

# What one kind of job needs is imported by its first one: importing the package loads no more than
# a listing needs.
if TYPE_CHECKING:
    from bc_attrvals.core.outcomes import DeleteReport, UpsertOutcome, UpsertReport
    from bc_attrvals.naming.named_source import NamedSource
    from bc_attrvals.sync.options import JournalPath, ShowFailures
    from bc_attrvals.writing.delete_job import DeleteJob, Ids
    from bc_attrvals.writing.outcomes import Outcomes
    from bc_attrvals.writing.sources import Items
    from bc_attrvals.writing.upsert_job import UpsertJob

#: Times that `delete_where` lists its filter before it gives up.
_MOST_DELETE_PASSES = 5


class AttributeValues(SyncMethods):
    """Customer attribute values of one store; get it as `Store.attribute_values`."""

    __slots__ = ("_calls", "_ensure_open", "_place", "_shared")

    def __init__(
        self,
        calls: Calls,
        shared: SharedByJobs,
        *,
        place: str,
        ensure_open: Callable[[], None],
    ) -> None:
        self._calls = calls
        self._shared = shared
        # The URL of the resource: what a journal is bound to.
        self._place = place
        self._ensure_open = ensure_open

    def __repr__(self) -> str:
        return f"<AttributeValues, {len(self._shared.registry)} keys under way>"

    async def get_page(
        self,
        filter: AttributeValueFilter | None = None,
        *,
        page: int = 1,
        limit: int = MAX_PAGE_SIZE,
    ) -> Page:
        """Return one page of a listing, in one call; pages count from 1.

        `limit` is at most 250 (BigCommerce guide, Filtering). The service may put fewer rows in a
        page, and says so in `pagination.per_page`. A filter that matches nothing gives an empty
        page without a call.

        Raises `InvalidInputError` for a page or limit out of range, and for a filter whose id
        lists need more than one URL: `pages` and `stream` take those.
        """
        self._ensure_open()
        check_range("page", page, 1, None)
        check_range("limit", limit, 1, MAX_PAGE_SIZE)
        queries = self._calls.queries(filter)
        if not queries:
            return Page([], Pagination(0, limit, 1, 0, 0))
        if len(queries) > 1:
            message = f"the id lists need {len(queries)} URLs; use pages() or stream()"
            raise InvalidInputError(message, field="filter")
        return await self._calls.page(queries[0], page, limit)

    async def get(self, customer_id: int, attribute_id: int) -> AttributeValue | None:
        """Return the value a customer has for an attribute, or None, in one call.

        Raises `ListingDriftError` for a total whose row is missing in the answer.
        """
        check_id(customer_id, "customer_id")
        check_id(attribute_id, "attribute_id")
        # A customer holds at most 50 values (BigCommerce reference, Customer Attribute Values).
        page = await self.get_page(
            AttributeValueFilter(customer_id_in=[customer_id], attribute_id_in=[attribute_id]),
            limit=min(DEFAULT_PAGE_SIZE, self._calls.sizes.page),
        )
        key = (customer_id, attribute_id)
        found = next((row for row in page.data if row.key == key), None)
        if found is None and page.pagination.total > len(page.data):
            raise _contradiction(page)
        return found

    async def count(self, filter: AttributeValueFilter | None = None) -> int:
        """Return how many values match, in one call for each URL the filter needs.

        The service's totals are summed. Each answer's one row is checked against the filter, and
        raises `FilterIgnoredError` if it lies outside. Raises `ListingDriftError` for a total
        without a row, and for a row without a total.
        """
        self._ensure_open()
        count = 0
        for query in self._calls.queries(filter):
            page = await self._calls.bare_page(query, 1, 1)
            total = page.pagination.total
            if bool(total) != bool(page.data):
                raise _contradiction(page)
            count += total
        return count

    async def pages(
        self, filter: AttributeValueFilter | None = None, *, read_ahead: int | None = None
    ) -> AsyncGenerator[Page]:
        """Yield every page of a listing in order.

        `read_ahead` pages (default: `Limits.reads` and two) are fetched while one is worked on. The
        count of pages is followed as it grows and shrinks. Rows that others insert or delete move
        the others across page borders, so a row may be missed. A total that moves is reported as a
        `ListingDriftSeen` event, and not repaired. No row comes twice.

        Raises `ListingDriftError` after the last page where fewer rows came than the total said
        while it stood still, or than the answers counted. No answer makes it read without end: it
        raises after three pages of rows beyond a total that stands still, and where a listing grows
        as fast as it is read after 8 times the pages of its first total and 100 more.
        Raises `FilterIgnoredError` for a row that the filter did not ask for; `name` can't be
        checked.

        Leaving the loop early, or cancelling, cancels what is fetched ahead; where it matters
        when, close the generator (`contextlib.aclosing`).
        """
        self._ensure_open()
        if read_ahead is not None:
            check_range("read_ahead", read_ahead, 0, None)
        with BulkJob(self._calls, "list") as job:
            async with aclosing(pages(job.calls, filter, read_ahead)) as listing:
                async for page in listing:
                    job.rows += len(page.data)
                    yield page

    async def stream(
        self, filter: AttributeValueFilter | None = None, *, exactly_once: bool = False
    ) -> AsyncGenerator[AttributeValue]:
        """Yield every value of a listing, page after page; see `pages`.

        With `exactly_once`, each row that exists during the whole listing is yielded exactly once,
        and rows that come or go meanwhile at most once. The listing is then read by ranges of
        `date_created` and keeps no order. It costs a few calls more while nobody writes and up to
        six times as many while others do, holds back up to 10,000 rows, and waits some seconds
        where one of the newest seconds fills more than a page. Clocks of writers may be off. One
        more than a minute behind is recognised by the ids of its rows, on the assumption that a new
        row has a higher id than all before. Raises `ListingDriftError` where exactly once can't be
        guaranteed.
        """
        if exactly_once:
            from bc_attrvals.reading.exactly_once import exact_rows

            self._ensure_open()
            check_filter(filter)
            with BulkJob(self._calls, "list") as job:
                async with aclosing(exact_rows(job.calls, filter)) as parts:
                    async for rows in parts:
                        job.rows += len(rows)
                        for value in rows:
                            yield value
            return
        async with aclosing(self.pages(filter)) as listing:
            async for page in listing:
                for value in page.data:
                    yield value

    async def put_batch(self, items: Sequence[AttributeValueUpsert]) -> list[AttributeValue]:
        """Store up to ten items in one PUT, and return the rows as the service echoes them.

        The service takes ten customers a call (BigCommerce reference, Upsert Customer Attribute
        Values), which may mean rows. Echoes come in the service's order, and may be fewer than the
        items. A refused call (`UnprocessableError`) is not taken apart, and it waits for no other
        call with the same keys; `upsert` does both. Where a 2xx can't be read, the rows are read
        back. If the store does not hold all items, they are sent once more before `DecodeError`.

        Raises `InvalidInputError` for none or more than ten items. Cancelled, it returns at once;
        a call on the wire keeps its slot until it is answered, and may be applied.
        """
        self._ensure_open()
        items = listed("items", items)
        if not 0 < len(items) <= MAX_BATCH_SIZE:
            message = f"a call takes 1 to {MAX_BATCH_SIZE} items, not {len(items)}"
            raise InvalidInputError(message, field="items")
        for index, item in enumerate(items):
            if not isinstance(item, AttributeValueUpsert):
                message = f"expected AttributeValueUpsert, got {type(item).__name__}"
                raise InvalidInputError(message, field="items", place=f"items[{index}]")
        from bc_attrvals.writing.put_batch import put_rows

        return await self._calls.shielded(partial(put_rows, self._calls, items))

    async def delete_batch(self, ids: Iterable[int]) -> None:
        """Delete rows by id in one DELETE; ids that do not exist are no error.

        Raises `InvalidInputError` for no ids, more than `Limits.delete_size`, or more than fit
        into a URL of 2,000 bytes, and `UnconfirmedError` for a 2xx that does not confirm the
        deletion; see `delete`. On cancellation see `put_batch`.
        """
        from bc_attrvals.writing.delete_job import check_ids

        self._ensure_open()
        ids = listed("ids", ids)
        check_ids(ids)
        most = self._calls.limits.delete_size
        requests = list(self._calls.delete_parts(ids, most))
        if len(requests) != 1:
            message = f"a call takes 1 to {most} ids that fit into a URL, not {len(ids)}"
            raise InvalidInputError(message, field="ids")
        await self._calls.shielded(partial(self._calls.delete, requests[0][0]))

    async def upsert(
        self,
        items: Items,
        *,
        raise_on_failure: bool = True,
        max_failures: int = MOST_FAILURES,
        journal: JournalPath | None = None,
        restart: bool = False,
        show_failures: ShowFailures | None = None,
    ) -> UpsertReport:
        """Store any number of items, ten a call, and return a report of their outcomes.

        `items` is an iterable, sync or async, and is read lazily; memory does not grow with its
        length. The last item of equal keys wins; no two upserts under way in the Store hold the
        same key. The report's `failures` holds the first `max_failures` outcomes that were
        failed or not sent.

        Concurrent calls of a few items (collections of less than `Limits.batch_size`) share PUTs,
        see `Limits.coalesce_ms`. Their reports count shared requests for each of them.

        A value is stored when its echo, or the row that is read back, holds it. What is not held is
        sent once more, and then fails with `UnconfirmedError`. A value that the store keeps in
        another form is counted as `altered` and is no failure.

        A refusal of one item (400, 409, 422, 423, or a 5xx that repeats for it) costs that item:
        its batch is sent in parts until it is found. The search ends after a few calls where each
        part fails with 5xx. A refusal of a batch for its size lowers the size of all later calls;
        so do two refusals (400, 422) in a row without a reason whose parts were all stored.

        Raises `PartialFailureError` with the report when an item was not stored, unless
        `raise_on_failure` is False. 401, 403, 404, a suspended or a closed store end the job at
        once with that error and its `.report`; input not yet read stays unread. An error raised
        by `items` itself is raised after all read before it was sent, its report in a note
        (and in `.report` of our own errors).

        Cancelled, it returns at once: calls on the wire may be applied and keep slots and keys
        until they are answered, and only calls that others share are still sent. Upserts are
        idempotent: run the same again. A call that timed out may be applied later than a newer
        value of the same key that was confirmed meanwhile. No answer shows that; a `sync` of the
        newer values finds and repairs it.

        `journal` is the path of a file that makes the upsert resumable: after it was killed, run
        the same again, and only items that were not confirmed are sent. The input is then read to
        its end before anything is sent. See `sync` for refused journals, `restart` and
        `show_failures`, which need a journal here; `upsert_stream` yields all outcomes without.
        """
        from bc_attrvals.core.outcomes import check_failures
        from bc_attrvals.writing.outcomes import Outcomes

        self._ensure_open()
        if show_failures is not None and journal is None:
            raise InvalidInputError("show_failures goes with journal", field="show_failures")
        with BulkJob(self._calls, "upsert") as bulk:
            if journal is not None:
                from bc_attrvals.sync.options import JobKind, SyncOptions

                options = SyncOptions(
                    kind=JobKind.UPSERT,
                    max_failures=max_failures,
                    show_failures=show_failures,
                    journal=journal,
                    restart=restart,
                )
                report = await self._sync_job(options, bulk.calls).upsert(items)
                bulk.sums = lambda: report
            else:
                others = self._shared.coalescer.others(items, bulk.calls)
                if others is not None and others.is_busy:
                    report = await others.share(items, bulk.calls, self._upsert_job, max_failures)
                    bulk.sums = lambda: report
                else:
                    job = self._upsert_job(items, Outcomes(max_failures), bulk.calls)
                    bulk.sums = job.report
                    with others or nullcontext():
                        await job.run()
                    report = _finished(job)
        return check_failures(report) if raise_on_failure else report

    async def upsert_stream(self, items: Items) -> AsyncGenerator[UpsertOutcome]:
        """Store any number of items, and yield one outcome for each as calls are answered.

        As `upsert`, but every item gives exactly one `UpsertOutcome`, in no order, and failed
        items raise nothing. A loop that pauses, pauses the input. What ends the job is raised after
        the outcomes of all items read. Leaving the loop is a cancellation: outcomes not yet taken
        are lost to the caller.
        """
        from bc_attrvals.writing.outcomes import Outcomes

        self._ensure_open()
        with BulkJob(self._calls, "upsert") as bulk:
            ready: deque[UpsertOutcome] = deque()
            job = self._upsert_job(items, Outcomes(0, ready), bulk.calls)
            bulk.sums = job.report
            try:
                more = True
                while more:
                    more = await job.step()
                    while ready:
                        yield ready.popleft()
            except BaseException:
                await job.abandon()
                raise
            _finished(job)

    async def delete(self, ids: Ids) -> DeleteReport:
        """Delete any number of rows by id, fifty a call; `ids` may be sync or async, read lazily.

        `deleted` counts the ids whose deletion the service confirmed, by 204 or by a 200 with its
        own empty answer; it does not say which of them existed. Any other 2xx is a failed try, and
        `UnconfirmedError` after the last one. A call that is refused for the number of its ids
        (413, 414, 400, 422) is halved, which lowers the size of all later calls of the Store. The
        first error ends the job: it is raised with `.report`, after calls under way have ended.
        Cancelled, it returns at once; calls on the wire may be applied.

        Raises `InvalidInputError` when there is no id at all, because other resources of the API
        answer a DELETE without ids with success, and for an entry that is no id from 1 to
        2**63 - 1.
        An error raised by `ids` itself is raised after all read before it was sent.
        """
        from bc_attrvals.writing.delete_job import DeleteJob

        self._ensure_open()
        with BulkJob(self._calls, "delete") as bulk:
            job = DeleteJob(bulk.calls)
            bulk.sums = job.report
            report = await job.run(ids)
        if not report.calls:
            raise InvalidInputError("ids must name at least one row", field="ids")
        return report

    async def delete_where(
        self, filter: AttributeValueFilter | None, *, everything: bool = False
    ) -> DeleteReport:
        """Delete every row that matches, and those that begin to match meanwhile.

        The filter is listed to its end, what was found is deleted, and it is listed again until
        nothing is found. Each row is checked against the filter before anything is deleted, `name`
        by the id of the attribute that has this name.

        Raises `InvalidInputError` for an empty filter (or None) unless `everything` is True,
        `FilterIgnoredError` for a row that the filter did not ask for, and `ListingDriftError` when
        rows keep coming after several passes, or when rows of one customer and attribute are not
        found by a look-up of the customer. Then, and on any error of a call, `.report` says what
        was deleted. A row that is listed again after its deletion was confirmed counts once.
        """
        from bc_attrvals.writing.delete_job import DeleteJob

        self._ensure_open()
        check_filter(filter)
        if (filter is None or filter.is_empty) and not everything:
            message = "an empty filter matches every value; say everything=True if you mean it"
            raise InvalidInputError(message, field="filter")
        with BulkJob(self._calls, "delete") as bulk:
            job = DeleteJob(bulk.calls)
            bulk.sums = job.report
            try:
                await self._delete_all(filter, job, bulk.calls)
            except BCAttrValsError as error:
                error.report = job.report()
                raise
        return job.report()

    async def _delete_all(
        self, wanted: AttributeValueFilter | None, job: DeleteJob, calls: Calls
    ) -> None:
        from bc_attrvals.reading.unordered import row_ids

        if wanted is not None and wanted.name is not None:
            # A row shows the id of its attribute, by which alone it can be checked.
            wanted = wanted.named(await self._shared.resolver.attribute_ids(wanted.name, calls))
        confirmed = array("q")
        for _ in range(_MOST_DELETE_PASSES):
            # Listed to the end first: deleting underneath would move rows across page borders.
            ids = await row_ids(calls, wanted)
            if not ids:
                return
            if confirmed:
                job.revoke(len(set(ids).intersection(confirmed)))
            await job.run(ids)
            confirmed += ids
        if await self.count(wanted):
            raise ListingDriftError("rows that match keep coming", passes=_MOST_DELETE_PASSES)

    def _upsert_job(self, items: Items, outcomes: Outcomes, calls: Calls) -> UpsertJob:
        from bc_attrvals.naming.named_source import NamedSource
        from bc_attrvals.writing.upsert_job import UpsertJob

        def begin(on_change: Callable[[], None], context: Context) -> NamedSource:
            return NamedSource(items, self._shared.resolver, calls, outcomes, on_change, context)

        return UpsertJob(begin, calls, registry=self._shared.registry, outcomes=outcomes)


def _contradiction(page: Page | BarePage) -> ListingDriftError:
    rows, total = len(page.data), page.pagination.total
    return ListingDriftError(f"an answer has {rows} rows, and its total says {total}")


def _finished(job: UpsertJob) -> UpsertReport:
    report = job.report()
    if job.error is not None:
        from bc_attrvals.core.outcomes import attach_report

        attach_report(job.error, report)
        raise job.error
    return report
