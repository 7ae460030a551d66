"""The questions that only read: of the query, pages, dates in filters, addresses, headers."""

from __future__ import annotations

from datetime import timedelta, timezone
from typing import Final
from urllib.parse import quote

from bc_attrvals.core.filters import format_moment
from bc_attrvals.core.rate_limit import read_quota_headers
from bc_attrvals.core.requests import Resource
from bc_attrvals.core.responses import SUCCESS, Response
from bc_attrvals.errors import PermissionDeniedError
from bc_attrvals.probe.answers import Listing, accepted, error_of, read_listing, read_rows
from bc_attrvals.probe.facts import Facts, Unsettled
from bc_attrvals.probe.sizes import largest_taken
from bc_attrvals.probe.target import Target

#: It matches nothing.
_FUTURE: Final = "date_modified:min=2100-01-01T00:00:00Z"
#: The guide's largest page (BigCommerce guide, Filtering), one more, and some beyond.
_PAGE_SIZES: Final = (250, 251, 1_000)
_FAR_PAGE: Final = 1_000_000
_FEWEST_ROWS: Final = 6
_MOST_ROWS: Final = 50
_ADDRESSES: Final = (10, 50, 100)
_MOST_ADDRESS_BYTES: Final = 3_500
_SECOND: Final = timedelta(seconds=1)
_RESET_STEPS_MS: Final = (1_000, 100, 10)
_FEWEST_ANSWERS: Final = 10
_WAITS: Final = ("Retry-After", "X-Rate-Limit-Time-Reset-Ms", "X-Retry-After")
_WEST: Final = timezone(timedelta(hours=-4))


async def query(target: Target, facts: Facts) -> None:
    """Ask whether page and limit arrive, and whether a filter keeps rows out."""
    listing = await _list(target, "limit=1&page=1")
    per_page = listing.number("per_page")
    is_lost = len(listing.objects) > 1 or per_page not in {1, None}
    facts.settle("drop_query", is_lost, f"limit=1 was answered with per_page {per_page}")
    if is_lost:
        raise Unsettled("the query is lost on its way")
    if listing.number("total"):
        await filters(target, facts)


async def filters(target: Target, facts: Facts) -> None:
    """Ask for rows of the future, where the store has rows."""
    if "ignore_filters" in facts:
        return
    listing = await _list(target, _FUTURE)
    count = max(len(listing.objects), listing.number("total") or 0)
    how = f"date_modified:min=2100-01-01 was answered with {count} values"
    facts.settle("ignore_filters", count > 0, how)


async def pages(target: Target, facts: Facts) -> None:
    """Ask for pages of one row, and for one past the last."""
    first = await _list(target, "limit=1&page=1")
    total = first.number("total") or 0
    facts.settle("omit_links", "links" not in first.pagination, "pagination of a listing")
    if not total:
        raise Unsettled("the store has no values")
    past = await _list(target, f"page={_FAR_PAGE}")
    how = f"page {_FAR_PAGE:,} had {len(past.objects)} values"
    facts.settle("clamp_pages", bool(past.objects), how)
    if first.number("current_page") == 0:
        facts.settle("current_page", "from_0", "page 1 was called 0")
    if total == 1:
        raise Unsettled("the store has one value only")
    if "current_page" not in facts:
        called = (await _list(target, "limit=1&page=2")).number("current_page")
        names = {1: "always_1", 2: "right"}
        if called in names:
            facts.settle("current_page", names[called], f"page 2 was called {called}")
    if not facts.value("ignore_filters"):
        await _counts(target, facts, total)


async def _counts(target: Target, facts: Facts, total: int) -> None:
    """Compare the counts of the one value with those of the store."""
    own = read_listing(await _own(target, "limit=1"))
    counts = {total: "of_store", 1: "of_filter"}
    counted, divided = own.number("total"), own.number("total_pages")
    if counted in counts:
        how = f"total was {counted} for one value, of {total} in the store"
        facts.settle("total", counts[counted], how)
    how = f"total_pages was {divided} for one value, of {total} in the store"
    if divided == total:
        facts.settle("total_pages", "of_whole_store", how)
    elif divided == 1 and facts.value("over_limit") != "clamp":
        facts.settle("total_pages", "right", f"{how}; no limit was cut")
    elif divided == 1:
        largest = facts.value("max_limit")
        assert isinstance(largest, int)
        if total <= largest:
            raise Unsettled("a larger limit is cut, and the store has one page of values only")
        asked = largest + total
        cut = (await _list(target, f"limit={asked}")).number("total_pages")
        sizes = {1: "of_asked_limit", -(-total // largest): "right"}
        how = f"total_pages was {cut} for limit={asked}, of {total} in the store"
        facts.settle_as("total_pages", sizes, cut, how)


async def page_size(target: Target, facts: Facts) -> None:
    """Ask for larger and larger pages of the one value, so that answers stay small."""

    def named(size: int, answer: Response) -> int:
        per_page = read_listing(answer).number("per_page")
        if per_page is None:
            raise Unsettled("answers have no per_page")
        return min(per_page, size)

    found = await largest_taken(_PAGE_SIZES, lambda size: _own(target, f"limit={size}"), named)
    if not found.size:
        raise Unsettled(f"no limit was accepted ({found.status})")
    is_cut = found.status in SUCCESS
    how = f"per_page was {found.size}; a larger one was "
    how += "cut to it" if is_cut else f"answered {found.status}"
    if not found.was_refused:
        how = f"a limit of {found.size} was accepted"
    facts.settle("max_limit", found.size, how, largest=found.size)
    if not found.was_refused:
        raise Unsettled(how)
    facts.settle("over_limit", "clamp" if is_cut else "refuse", how)


async def order(target: Target, facts: Facts) -> None:
    """Compare one page with the two pages of half its size."""
    total = (await _list(target, "limit=1")).number("total") or 0
    half = min(total, _MOST_ROWS, facts.number("max_limit", _MOST_ROWS)) // 2
    if 2 * half < _FEWEST_ROWS:
        raise Unsettled(f"{2 * half} values on a page are too few")
    whole: list[int] = []
    parts: list[int] = []
    for _ in range(2):
        # Others may write meanwhile.
        whole = await _ids(target, f"limit={2 * half}&page=1")
        parts = await _ids(target, f"limit={half}&page=1")
        parts += await _ids(target, f"limit={half}&page=2")
        if parts == whole:
            break
    how = f"ids of {len(whole)} values, on one page and on two"
    if parts != whole:
        facts.settle("order", "shifting", f"{how}: they differ, twice")
    elif whole == sorted(whole):
        facts.settle("order", "id", how)
    elif whole == sorted(whole, reverse=True):
        facts.settle("order", "id_desc", how)
    else:
        facts.settle("order", "shuffled", f"{how}: neither ascending nor descending")


async def _ids(target: Target, query_: str) -> list[int]:
    return [one.get("id", 0) for one in (await _list(target, query_)).objects]


async def dates(target: Target, facts: Facts) -> None:
    """Ask for the one value by its own date_modified."""
    row = await target.ensure()
    moment = row.modified
    if moment is None:
        raise Unsettled("answers have no date_modified")
    at, after = format_moment(moment), format_moment(moment + _SECOND)
    if await _selects(target, f"date_modified:min={after}"):
        raise Unsettled("date_modified:min does not keep an older value out")
    lower = await _selects(target, f"date_modified:min={at}")
    upper = await _selects(target, f"date_modified:max={at}")
    how = f":min of its own date {_found(lower)} the value, :max {_found(upper)} it"
    if lower is upper:
        facts.settle("date_bounds", "inclusive" if lower else "exclusive", how)
    else:
        facts.leave("date_bounds", how)
    west = (moment + _SECOND).astimezone(_WEST).strftime("%Y-%m-%dT%H:%M:%S-0400")
    for name, text in (("encoded_dates", after.replace(":", "%3A")), ("compact_offsets", west)):
        answer = await _own(target, f"date_modified:max={text}")
        is_accepted = answer.status in SUCCESS
        if is_accepted and not read_rows(answer):
            facts.leave(name, f":max={text} was accepted and misread")
        else:
            facts.settle(name, is_accepted, f":max={text} was answered {answer.status}")


def _found(is_found: bool) -> str:
    return "finds" if is_found else "does not find"


async def _own(target: Target, more: str) -> Response:
    customer, attribute = target.main
    return await target.wire.get(f"customer_id:in={customer}&attribute_id:in={attribute}&{more}")


async def _selects(target: Target, more: str) -> bool:
    return bool(read_rows(accepted(await _own(target, more), more)))


async def addresses(target: Target, facts: Facts) -> None:
    """Ask for the customer by its address, in other case, and many times at once."""
    try:
        answer = await target.wire.get(f"id:in={target.customers[0]}", Resource.CUSTOMERS)
    except PermissionDeniedError:
        raise Unsettled("the token may not read customers") from None
    rows = read_listing(answer).objects if answer.status in SUCCESS else []
    own = [one.get("email") for one in rows if one.get("id") == target.customers[0]]
    address = own[0] if own else None
    if not isinstance(address, str) or "," in address:
        raise Unsettled("the customer or its address is not listed")
    if not await _knows(target, address):
        raise Unsettled("email:in of the customer's address does not find it alone")
    swapped = address.swapcase()
    if swapped == address:
        facts.leave("case_sensitive_emails", "the address has no letters")
    else:
        is_regarded = not await _knows(target, swapped)
        how = f"email:in {_found(not is_regarded)} the address in the other case"
        facts.settle("case_sensitive_emails", is_regarded, how)
    room = _MOST_ADDRESS_BYTES // (len(quote(address, safe="")) + 1)
    sizes = sorted({min(size, room) for size in _ADDRESSES})
    found = await largest_taken(sizes, lambda size: _by_address(target, [address] * size))
    if not found.size:
        raise Unsettled(f"email:in of several addresses was answered {found.status}")
    facts.settle_largest("max_emails", found, "address")


async def _by_address(target: Target, addresses_: list[str]) -> Response:
    query_ = "email:in=" + ",".join(quote(one, safe="") for one in addresses_)
    return await target.wire.get(query_, Resource.CUSTOMERS)


async def _knows(target: Target, address: str) -> bool:
    answer = accepted(await _by_address(target, [address]), "email:in")
    # A filter that is ignored finds others too.
    return [one.get("id") for one in read_listing(answer).objects] == [target.customers[0]]


async def _list(target: Target, query_: str) -> Listing:
    answer = await target.wire.get(query_)
    if answer.status not in SUCCESS:
        raise error_of(answer)
    return read_listing(answer)


async def headers(target: Target, facts: Facts) -> None:
    """Look at the headers of all answers that came. It sends nothing."""
    answers = target.wire.answers
    with_id = sum(one.request_id is not None for one in answers)
    facts.settle("request_id", with_id == len(answers), f"{with_id} of {len(answers)} answers")
    known = [(one.status, seen) for one in answers if (seen := read_quota_headers(one.headers))]
    how = f"{len(known)} of {len(answers)} answers"
    if known:
        how += f", of statuses {', '.join(map(str, sorted({status for status, _ in known})))}"
        newest = known[-1][1]
        quota = {"calls": newest.quota, "window_ms": round(newest.window_s * 1000)}
        facts.settle("quota", quota, "headers")
    facts.settle("rate_headers", bool(known), how)
    resets_ms = [round(seen.reset_s * 1000) for _, seen in known]
    if len(set(resets_ms)) >= _FEWEST_ANSWERS or len(resets_ms) >= 2 * _FEWEST_ANSWERS:
        step = next((s for s in _RESET_STEPS_MS if not any(one % s for one in resets_ms)), 1)
        facts.settle("reset_granularity_ms", step, f"{len(resets_ms)} answers")
    refusals = [one for one in answers if one.status == 429]
    if not refusals:
        facts.leave("wait_headers", "no call was answered 429")
    waits = [name for name in _WAITS if any(name in one.headers for one in refusals)]
    if waits:
        facts.settle("wait_headers", dict.fromkeys(waits, "seen"), "429")
