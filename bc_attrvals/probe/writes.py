"""The questions that write: of values, batches, refusals, deletions. To the named values only."""

from __future__ import annotations

from typing import Final

from bc_attrvals.core.models import MAX_VALUE_CHARACTERS, Key
from bc_attrvals.core.refusals import size_allowed
from bc_attrvals.core.responses import SUCCESS, Response, indexes_named
from bc_attrvals.errors import APIError, UnconfirmedError
from bc_attrvals.probe.answers import Row, accepted, error_of, read_rows, style_of
from bc_attrvals.probe.facts import Facts, Unsettled
from bc_attrvals.probe.sizes import largest_taken
from bc_attrvals.probe.target import Target, item

#: Dates are whole seconds.
_NEXT_SECOND_S: Final = 1.2
_NUMBERS: Final = ("1.50", "007", "1e3")
_DATES: Final = ("2024-05-14", "2024-05-14T09:34:00Z")
_CHARACTERS: Final = "é e\u0301 \U0001f600 <b>&amp;</b> \u00a0\t."
#: BigCommerce reference, Upsert Customer Attribute Values: 10, and one more; then some beyond, up
#: to more than a customer holds (50) and than a page does (250).
_ROWS: Final = (10, 11, 20, 51, 251)
_IDS: Final = (10, 50, 100, 250)
#: Dates are whole seconds, and an answer may take one.
_CLOCK_TOLERANCE_S: Final = 2.5
_FEWEST_WRITES: Final = 5
#: Statuses that the sandbox can refuse with.
_REFUSALS: Final = frozenset({400, 409, 422, 423, 500})
_SIZE_REFUSALS: Final = {413: 413, 422: 422}
_DELETE_REFUSALS: Final = {status: status for status in (400, 413, 414, 422)}


async def first_write(target: Target, facts: Facts) -> None:
    """Write a first value, and see that it is stored.

    Each value that was there is first written as it is: one that the store refuses or alters could
    not be put back. A refusal is raised, because nothing can be asked then.
    """
    for key, before in target.before.items():
        if before is not None:
            own = await target.wire.put([item(key, before.value)])
            if 400 <= own.status < 500 and own.status != 403:
                message = f"a value that is there could not be put back: {error_of(own)}"
                raise UnconfirmedError(message)
            _check_stored(own, await target.read(key, before.value), before.value)
    key = target.main
    value = target.fresh(key)
    answer = await target.put(key, value)
    row = await target.read(key, value)
    _check_stored(answer, row, value)
    assert row is not None
    facts.settle("value_field", row.value_field, "a listing")
    facts.settle("zoneless_dates", not row.has_zone, "a listing")


def _check_stored(answer: Response, row: Row | None, value: str) -> None:
    if answer.status not in SUCCESS:
        raise error_of(answer)
    if row is None or row.value != value:
        raise UnconfirmedError("the store confirmed a value that it does not hold")


async def equal_write(target: Target, facts: Facts) -> None:
    """Write what is stored a second later."""
    before = await target.ensure()
    await target.wire.pause(_NEXT_SECOND_S)
    answer = await target.wire.put([item(target.main, before.value)])
    echoed = len(read_rows(accepted(answer, "an equal value")))
    after = await target.ensure()
    if before.modified is None or after.modified is None:
        raise Unsettled("answers have no date_modified")
    moved_s = (after.modified - before.modified).total_seconds()
    facts.settle("touch_unchanged", moved_s != 0, f"date_modified moved by {moved_s:.0f} s")
    if echoed and moved_s:
        raise Unsettled("an equal value is a change, for it moves date_modified")
    how = f"the answer to an equal value had {echoed} rows"
    facts.settle("omit_unchanged", not echoed, how)


async def blanks(target: Target, facts: Facts) -> None:
    """Write a value with blanks around it."""
    core = target.fresh(target.main)
    sent = f"  {core} "
    stored = await _stored(target, target.main, sent)
    how = f"{sent!r} is stored as {stored!r}"
    facts.settle_as("trim_values", {core: True, sent: False}, stored, how)


async def characters(target: Target, facts: Facts) -> None:
    """Write a value with characters beyond ASCII, markup and a tab."""
    kind = target.kind(target.main)
    if kind in {"number", "date"}:
        raise Unsettled(f"the attribute is a {kind}")
    stored = await _stored(target, target.main, _CHARACTERS)
    name = "kept" if stored == _CHARACTERS else "altered"
    facts.settle("characters", name, f"{_CHARACTERS!r} is stored as {stored!r}")


async def empty_value(target: Target, facts: Facts) -> None:
    """Write an empty value, which may delete the row."""
    if not target.is_scratch:
        raise Unsettled("the value was there before, and an empty one may delete it")
    answer = await target.put(target.main, "")
    if answer.status not in SUCCESS:
        facts.settle("empty_value", "refused", f"answered {answer.status}")
        return
    row = await target.read(target.main)
    name = "row_deleted" if row is None else "ignored" if row.value else "stored"
    facts.settle("empty_value", name, "written, then read")


async def _stored(target: Target, key: Key, value: str) -> str:
    row = await target.stored(key, value)
    return "no value" if row is None else row.value


async def typed_values(target: Target, facts: Facts) -> None:
    """Write numbers and dates, and what the attribute's type can't hold."""
    for fact, kind, values in (("numbers", "number", _NUMBERS), ("dates", "date", _DATES)):
        key = target.key_of_kind(kind)
        if key is None:
            key = target.main
            if target.kind(key) not in {"string", None}:
                facts.leave(fact, f"the attribute is a {target.kind(key)}")
                continue
        seen: dict[str, str] = {}
        for value in values:
            try:
                seen[value] = await _stored(target, key, value)
            except Unsettled:
                seen[value] = "refused"
        facts.settle(fact, seen, f"sent and stored, of an attribute of type {target.kind(key)}")
    typed = target.key_of_kind("number", "date")
    if typed is None:
        raise Unsettled("name an attribute of type number or date")
    answer = await target.put(typed, "probe")
    how = f"'probe' for a {target.kind(typed)} was answered {answer.status}"
    facts.settle("check_value_types", answer.status not in SUCCESS, how)


async def refusals(target: Target, facts: Facts) -> None:
    """Send a good and a bad item, in both orders, two bad ones, and bad ones of other kinds."""
    key = target.main
    bad = {name: value for name, value in item(key, "").items() if name != "value"}
    answer = await target.wire.put([bad])
    if answer.status in SUCCESS:
        raise Unsettled(f"an item without value was answered {answer.status}")
    if style_of(answer, 1) == "no body":
        # It may have been cut off on its way.
        answer = await target.wire.put([bad])
    status, style = answer.status, style_of(answer, 1)
    how = f"an item without value: {status}, errors {', '.join(error_of(answer).errors) or 'none'}"
    if style == "no body":
        facts.leave("error_style", f"a refusal ({status}) without a body that can be read")
    else:
        facts.settle("error_style", style, how)
    if status in _REFUSALS:
        facts.settle("refusal_status", status, how)
    else:
        facts.leave("refusal_status", how)
    seen = {"missing": f"{status} {style}"}
    size = MAX_VALUE_CHARACTERS + 1
    values = {f"of {size} characters": "x" * size, "number": 5, "null": None}
    for kind, value in values.items():
        answer = await target.put(key, value)
        named = "" if answer.status in SUCCESS else f" {style_of(answer, 1)}"
        seen[kind] = f"{answer.status}{named}"
    facts.settle("bad_values", seen, "status of each, and how the item is named")
    if facts.value("max_items") == 1 and facts.value("batch_by") == "rows":
        raise Unsettled("a call takes one item")
    await _good_items(target, facts, bad)
    both = error_of(await target.wire.put([bad, bad])).errors
    if style != "indexed":
        raise Unsettled("no index is named")
    named = "first" if len(both) == 1 else "all"
    facts.settle("bad_items_named", named, f"two bad items: errors {', '.join(both)}")


async def _good_items(target: Target, facts: Facts, bad: dict[str, object]) -> None:
    """See whether the good item of a refused call is stored, before the bad one and after it."""
    key = target.main
    stored: list[str] = []
    for place, name in ((1, "before"), (0, "after")):
        value = target.fresh(key)
        items = [item(key, value)]
        items.insert(place, bad)
        answer = await target.wire.put(items)
        if answer.status in SUCCESS:
            raise Unsettled(f"a good and a bad item were answered {answer.status}")
        row = await target.read(key)
        if row is not None and row.value == value:
            stored.append(name)
    if len(stored) == 1:
        raise Unsettled(f"good items {stored[0]} the bad one were stored, others were not")
    how = "a good item before the bad one, then one after it"
    facts.settle("store_good_items_of_refused_batch", bool(stored), how)


async def repeated_keys(target: Target, facts: Facts) -> None:
    """Send one key twice in a call."""
    key = target.main
    first, last = target.fresh(key), target.fresh(key)
    answer = await target.wire.put([item(key, first), item(key, last)])
    if answer.status not in SUCCESS:
        if _is_of_size(error_of(answer), 2):
            raise Unsettled(f"two items were refused for their number ({answer.status})")
        facts.settle("repeated_keys", "refused", f"answered {answer.status}")
        return
    row = await target.read(key)
    how = "two values of one key, then read"
    facts.settle_as("repeated_keys", {first: "first", last: "last"}, row and row.value, how)


def _is_of_size(error: APIError, count: int) -> bool:
    """Return whether a refusal of `count` items is for their number."""
    return error.status == 413 or size_allowed(error, count) is not None


async def batches(target: Target, facts: Facts) -> None:
    """Send more and more items of one customer, then one of each customer."""
    customer = target.main[0]
    keys = [key for key in target.keys if key[0] == customer]
    can_repeat = facts.value("repeated_keys") != "refused"

    async def send(size: int) -> Response:
        answer = await target.wire.put(target.fresh_items((keys * size)[:size]))
        if answer.status not in SUCCESS:
            error = error_of(answer)
            if not _is_of_size(error, size) and indexes_named(error.errors, size):
                raise Unsettled(f"{size} items were refused, for one of them: {error.title}")
        return answer

    what = f"of one customer{', keys repeated' if can_repeat else ''}"
    sizes = [size for size in _ROWS if can_repeat or size < len(keys)] or [len(keys)]
    found = await largest_taken(sizes, send)
    how = f"{found.size} items {what} were accepted"
    if found.was_refused:
        facts.settle("batch_by", "rows", f"{how}, one more was not")
    elif found.size <= _ROWS[0]:
        raise Unsettled(f"equal keys are refused; name more than {_ROWS[0]} attributes")
    else:
        facts.settle("batch_by", "customers", how)
        keys = list({key[0]: key for key in target.keys}.values())
        found = await largest_taken([len(keys)], send)
        if not found.was_refused:
            raise Unsettled(f"items of {found.size} customers were accepted; name more customers")
    how = f"{found.size} were accepted; more were answered {found.status}"
    if found.size:
        facts.settle("max_items", found.size, how, largest=found.size)
    facts.settle_as("batch_limit_status", _SIZE_REFUSALS, found.status, how)
    if not found.size:
        raise Unsettled(how)


async def several_keys(target: Target, facts: Facts) -> None:
    """Send several keys in a call, and compare the order of the answer."""
    keys = target.keys[: facts.number("max_items", _ROWS[0])]
    if len(keys) < 2:
        raise Unsettled("name more customers or attributes")
    what = f"{len(keys)} items"
    answer = accepted(await target.wire.put(target.fresh_items(keys)), what)
    echoed = tuple(row.key for row in read_rows(answer))
    orders = {tuple(keys): "given", tuple(reversed(keys)): "reversed"}
    facts.settle_as("answer_order", orders, echoed, f"the answer to {what}: {len(echoed)} rows")


async def deletions(target: Target, facts: Facts) -> None:
    """Delete the row, then with its id repeated. It is written again before each call."""
    if not target.is_scratch:
        raise Unsettled("the value was there before, and deleting it would change its id")
    if facts.value("ignore_filters") is not False:
        raise Unsettled("filters are ignored, so the row can't be identified")
    row = await target.ensure()
    answer = await target.wire.delete([row.id])
    is_gone = await target.read(target.main) is None
    state = "gone" if is_gone else "still there"
    how = f"{answer.status} with {len(answer.body)} bytes; the value was {state}"
    if answer.status not in SUCCESS or not is_gone:
        raise Unsettled(how)
    facts.settle("delete_status", answer.status, how)

    async def send(size: int) -> Response:
        # The id of a row that exists: a free one may be given to another row meanwhile.
        return await target.wire.delete([(await target.ensure()).id] * size)

    found = await largest_taken(_IDS, send)
    if not found.size:
        raise Unsettled(f"a repeated id was answered {found.status}")
    how = facts.settle_largest("max_delete_ids", found, "id")
    facts.settle_as("delete_limit_status", _DELETE_REFUSALS, found.status, how)


async def clocks(target: Target, facts: Facts) -> None:
    """Compare the dates of all writes with the times of their answers. It sends nothing."""
    offsets_s = target.offsets_s
    if len(offsets_s) < _FEWEST_WRITES:
        raise Unsettled(f"{len(offsets_s)} writes are too few")
    lags_s: list[float] = []
    for lag_s in sorted(max(offsets_s) - one for one in offsets_s):
        if not lags_s or lag_s - lags_s[-1] > _CLOCK_TOLERANCE_S:
            lags_s.append(lag_s)
    how = f"date_modified of {len(offsets_s)} writes, less the time of their answers"
    # Behind the clock that is ahead; an empty list means one clock.
    lags = [round(one) for one in lags_s] if len(lags_s) > 1 else []
    facts.settle("clock_lags_s", lags, how)
