"""Puts a probe's questions in order, and puts back what they wrote, however they end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import attrs

from bc_attrvals.errors import APIError, DecodeError
from bc_attrvals.probe import reads, writes
from bc_attrvals.probe.facts import FACTS, Fact, Facts, Unsettled
from bc_attrvals.probe.restoring import KeptState, remove_state, restore, write_state
from bc_attrvals.probe.target import Target, find_attributes
from bc_attrvals.probe.wire import Wire

_Step = tuple[Callable[[Target, Facts], Awaitable[None]], tuple[str, ...]]

_WRITING: Final[Sequence[_Step]] = (
    (reads.filters, ("ignore_filters",)),
    (writes.equal_write, ("omit_unchanged", "touch_unchanged")),
    (reads.dates, ("date_bounds", "encoded_dates", "compact_offsets")),
    (writes.repeated_keys, ("repeated_keys",)),
    (writes.batches, ("batch_by", "max_items", "batch_limit_status")),
    (
        writes.refusals,
        (
            "refusal_status",
            "error_style",
            "bad_items_named",
            "bad_values",
            "store_good_items_of_refused_batch",
        ),
    ),
    (writes.several_keys, ("answer_order",)),
    (writes.blanks, ("trim_values",)),
    (writes.characters, ("characters",)),
    (writes.empty_value, ("empty_value",)),
    (writes.typed_values, ("numbers", "dates", "check_value_types")),
)
_READING: Final[Sequence[_Step]] = (
    (reads.page_size, ("max_limit", "over_limit")),
    (reads.pages, ("omit_links", "clamp_pages", "current_page", "total", "total_pages")),
    (reads.order, ("order",)),
    (reads.addresses, ("case_sensitive_emails", "max_emails")),
)
_DELETING: Final[Sequence[_Step]] = (
    (writes.deletions, ("delete_status", "max_delete_ids", "delete_limit_status")),
)
_FIRST: Final = ("value_field", "zoneless_dates")
#: Of these nothing is asked, for it would write or load what was not named.
_NEVER: Final = {
    "max_new_attributes": "it would make attributes",
    "unique_attribute_names": "it would make attributes",
    "abandoned_keeps_slot": "it would abandon writes",
}
_RESET_STEPS_MS: Final = (1_000, 100, 10)
_FEWEST_ANSWERS: Final = 10
#: Dates are whole seconds, and an answer may take one.
_CLOCK_TOLERANCE_S: Final = 2.5


@attrs.frozen
class ProbeReport:
    """What a probe settled. `keys` values were written to, of an attribute of this type."""

    facts: Facts
    probed_at: str
    attribute_type: str | None
    keys: int
    calls: int
    seconds: float

    def all(self) -> dict[str, Fact]:
        """Return the facts by name, in the order of the table."""
        return self.facts.all()

    def to_dict(self) -> dict[str, object]:
        """Return the content of the file; see `core.probe_file`."""
        return self.facts.document(
            probed_at=self.probed_at,
            attribute_type=self.attribute_type,
            keys=self.keys,
            calls=self.calls,
            seconds=self.seconds,
        )


class Probe:
    """One probe of one store: `prepare` reads what is there, `run` asks and puts it back."""

    def __init__(
        self,
        wire: Wire,
        customers: Sequence[int],
        attributes: Sequence[int | str],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._wire = wire
        self._customers = customers
        self._attributes = attributes
        self._clock = clock
        self._facts = Facts()
        self._target: Target | None = None

    async def prepare(self) -> Target:
        """Look the attributes up and read what the named values hold. Nothing is written.

        Raises the errors of names and counts, and those of the service. A store that loses queries
        or ignores filters is not written to: see `can_write`.
        """
        wire = self._wire
        attributes, has_pagination = await find_attributes(wire, self._attributes)
        target = Target(wire, self._customers, attributes, self._clock)
        if has_pagination is None:
            self._facts.leave("attributes_pagination", "the token may not read attributes")
        else:
            self._facts.settle("attributes_pagination", has_pagination, "a list of attributes")
        try:
            await self._ask(target, (reads.query, ("drop_query",)))
        finally:
            self._target = target
        if self.can_write:
            await target.read_before()
        return target

    @property
    def can_write(self) -> bool:
        """Whether the store picks the rows that it is asked for, as far as is known."""
        return not (self._facts.value("drop_query") or self._facts.value("ignore_filters"))

    async def run(self, state_file: Path, report: Callable[[str], None]) -> ProbeReport:
        """Ask everything, and put back what was written, also when cancelled.

        The state is in `state_file` from before the first write until all is proven to be as
        before. `report` gets a line for each part. Raises `RestoreError` if something is left, and
        what the service answered where nothing can be asked; what was written is put back then.
        """
        target = self._target
        assert target is not None, "prepare first"
        began_s = self._clock()
        if self.can_write:
            state = KeptState.of(self._wire.place, target.before)
            write_state(state_file, state)
            try:
                report(f"What the values hold is kept in {state_file}")
                calls = self._wire.calls
                await writes.first_write(target, self._facts)
                self._facts.close(_FIRST, "", self._wire.calls - calls)
                await self._ask(target, *_WRITING)
                report("Asking about pages")
                await self._ask(target, *_READING)
                report("Asking about deletions")
                await self._ask(target, *_DELETING)
            finally:
                await _to_the_end(self._put_back(state, state_file, report))
        else:
            report("The store does not pick the rows that it is asked for; nothing is written")
            if not self._facts.value("drop_query"):
                await self._ask(target, *_READING)
        self._conclude(target)
        return ProbeReport(
            self._facts,
            datetime.fromtimestamp(began_s, UTC).isoformat(timespec="seconds"),
            target.kind(target.main),
            len(target.keys),
            self._wire.calls,
            round(self._clock() - began_s, 3),
        )

    async def _put_back(
        self, state: KeptState, state_file: Path, report: Callable[[str], None]
    ) -> None:
        await restore(self._wire, state)
        remove_state(state_file)
        report("Everything is as before")

    async def _ask(self, target: Target, *steps: _Step) -> None:
        for function, names in steps:
            calls, why = self._wire.calls, "answers do not show it"
            try:
                await function(target, self._facts)
            except Unsettled as reason:
                why = str(reason)
            except DecodeError as error:
                why = f"an answer can't be read: {error}"
            except APIError as error:
                if error.status in {401, 403, 404, 429} or error.status >= 500:
                    raise
                why = f"answered {error.status}"
            self._facts.close(names, why, self._wire.calls - calls)

    def _conclude(self, target: Target) -> None:
        """Settle what all answers together show; give the rest its reason."""
        facts, wire = self._facts, self._wire
        count = wire.answers.total()
        facts.settle("request_id", wire.with_request_id == count, _of(wire.with_request_id, count))
        with_quota = wire.with_quota.total()
        statuses = ", ".join(str(one) for one in sorted(wire.with_quota))
        how = _of(with_quota, count) + (f", of statuses {statuses}" if statuses else "")
        facts.settle("rate_headers", with_quota > 0, how)
        if wire.quota:
            facts.settle("quota", wire.quota, "headers")
        resets = wire.resets_ms
        if len(set(resets)) >= _FEWEST_ANSWERS or len(resets) >= 2 * _FEWEST_ANSWERS:
            step = next((s for s in _RESET_STEPS_MS if not any(one % s for one in resets)), 1)
            facts.settle("reset_granularity_ms", step, f"{len(resets)} answers")
        if not wire.answers[429]:
            facts.leave("wait_headers", "no call was answered 429")
        elif wire.wait_headers:
            facts.settle("wait_headers", dict.fromkeys(sorted(wire.wait_headers), "seen"), "429")
        offsets_s = target.offsets_s
        if len(offsets_s) >= _FEWEST_ANSWERS // 2:
            how = f"date_modified of {len(offsets_s)} writes, less the time of their answers"
            facts.settle("clock_lags_s", _lags_s(offsets_s), how)
        for name, why in _NEVER.items():
            facts.leave(name, why)
        facts.close(
            [name for name in FACTS if name not in facts], "nothing was written or seen of it", 0
        )


async def _to_the_end(work: Coroutine[Any, Any, object]) -> None:
    """Wait for work that a cancellation does not end; a second cancellation does."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
        task.result()
        raise


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole} answers"


def _lags_s(offsets_s: Sequence[float]) -> list[int]:
    """Return how many seconds the clocks lag behind the one that is ahead; empty for one clock."""
    newest = max(offsets_s)
    lags: list[float] = []
    for lag_s in sorted(newest - one for one in offsets_s):
        if not lags or lag_s - lags[-1] > _CLOCK_TOLERANCE_S:
            lags.append(lag_s)
    return [round(one) for one in lags] if len(lags) > 1 else []
