"""Puts a probe's questions in order, and puts back what they wrote, however they end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import attrs

from bc_attrvals.core.probe_file import PROBE_FORMAT
from bc_attrvals.errors import APIError, DecodeError
from bc_attrvals.probe import reads, writes
from bc_attrvals.probe.facts import FACTS, Fact, Facts, Unsettled
from bc_attrvals.probe.restoring import KeptState, kept_state, remove_state, restore, write_state
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

    facts: dict[str, Fact]
    probed_at: str
    attribute_type: str | None
    keys: int
    calls: int
    seconds: float

    def to_dict(self) -> dict[str, object]:
        """Return the content of the file; see `core.probe_file`."""
        about = attrs.asdict(self, recurse=False)
        facts = {name: fact.to_dict() for name, fact in self.facts.items()}
        return {"format": PROBE_FORMAT, **about, "facts": facts}


@attrs.define(eq=False)
class Probe:
    """One probe of one store: `prepare` reads what is there, `run` asks and puts it back."""

    wire: Wire
    target: Target
    facts: Facts

    @classmethod
    async def prepare(
        cls,
        wire: Wire,
        customers: Sequence[int],
        attributes: Sequence[int | str],
        *,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Look the attributes up and read what the named values hold. Nothing is written.

        Raises the errors of names and counts, and those of the service. A store that loses queries
        or ignores filters is not written to: see `can_write`.
        """
        found, has_pagination = await find_attributes(wire, attributes)
        probe = cls(wire, Target(wire, customers, found, clock), Facts())
        if has_pagination is None:
            probe.facts.leave("attributes_pagination", "the token may not read attributes")
        else:
            probe.facts.settle("attributes_pagination", has_pagination, "a list of attributes")
        await probe._ask((reads.query, ("drop_query",)))
        if probe.can_write:
            await probe.target.read_before()
        return probe

    @property
    def can_write(self) -> bool:
        """Whether the store picks the rows that it is asked for, as far as is known."""
        return not (self.facts.value("drop_query") or self.facts.value("ignore_filters"))

    async def run(self, state_file: Path, report: Callable[[str], None]) -> ProbeReport:
        """Ask everything, and put back what was written, also when cancelled.

        The state is in `state_file` from before the first write until all is proven to be as
        before. `report` gets a line for each part. Raises `RestoreError` if something is left, and
        what the service answered where nothing can be asked; what was written is put back then.
        """
        target, facts = self.target, self.facts
        began_s = target.clock()
        if self.can_write:
            state = kept_state(self.wire.place, target.before)
            write_state(state_file, state)
            try:
                report(f"What the values hold is kept in {state_file}")
                calls = self.wire.calls
                await writes.first_write(target, facts)
                facts.close(_FIRST, "", self.wire.calls - calls)
                await self._ask(*_WRITING)
                report("Asking about pages")
                await self._ask(*_READING)
                report("Asking about deletions")
                await self._ask(*_DELETING)
            finally:
                await _to_the_end(self._put_back(state, state_file, report))
        else:
            report("The store does not pick the rows that it is asked for; nothing is written")
            if not facts.value("drop_query"):
                await self._ask(*_READING)
        self._conclude()
        return ProbeReport(
            facts.all(),
            datetime.fromtimestamp(began_s, UTC).isoformat(timespec="seconds"),
            target.kind(target.main),
            len(target.keys),
            self.wire.calls,
            round(target.clock() - began_s, 3),
        )

    async def _put_back(
        self, state: KeptState, state_file: Path, report: Callable[[str], None]
    ) -> None:
        await restore(self.wire, state)
        remove_state(state_file)
        report("Everything is as before")

    async def _ask(self, *steps: _Step) -> None:
        for function, names in steps:
            calls, why = self.wire.calls, "answers do not show it"
            try:
                await function(self.target, self.facts)
            except Unsettled as reason:
                why = str(reason)
            except DecodeError as error:
                why = f"an answer can't be read: {error}"
            except APIError as error:
                if error.status in {401, 403, 404, 429} or error.status >= 500:
                    raise
                why = f"answered {error.status}"
            self.facts.close(names, why, self.wire.calls - calls)

    def _conclude(self) -> None:
        """Settle what all answers together show; give the rest its reason."""
        facts, wire = self.facts, self.wire
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
        offsets_s = self.target.offsets_s
        if len(offsets_s) >= _FEWEST_ANSWERS // 2:
            how = f"date_modified of {len(offsets_s)} writes, less the time of their answers"
            facts.settle("clock_lags_s", _lags_s(offsets_s), how)
        for name, why in _NEVER.items():
            facts.leave(name, why)
        left = [name for name in FACTS if name not in facts]
        facts.close(left, "nothing was written or seen of it")


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
