"""Puts a probe's questions in order, and puts back what they wrote, however they end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import attrs

from bc_attrvals.core.probe_file import PROBE_FORMAT
from bc_attrvals.errors import APIError, DecodeError
from bc_attrvals.probe import reads, writes
from bc_attrvals.probe.facts import FACTS, Fact, Facts, Unsettled
from bc_attrvals.probe.restore import KeptState, kept_state, remove_state, restore, write_state
from bc_attrvals.probe.target import Target, find_attributes
from bc_attrvals.probe.wire import Wire

#: Questions, and the facts that each is about.
_Questions = Mapping[Callable[[Target, Facts], Awaitable[None]], str]

_BEFORE: Final[_Questions] = {reads.query: "drop_query"}
_WRITING: Final[_Questions] = {
    reads.filters: "ignore_filters",
    writes.equal_write: "omit_unchanged touch_unchanged",
    reads.dates: "date_bounds encoded_dates compact_offsets",
    writes.repeated_keys: "repeated_keys",
    writes.batches: "batch_by max_items batch_limit_status",
    writes.refusals: "refusal_status error_style bad_items_named bad_values "
    "store_good_items_of_refused_batch",
    writes.several_keys: "answer_order",
    writes.blanks: "trim_values",
    writes.characters: "characters",
    writes.empty_value: "empty_value",
    writes.typed_values: "numbers dates check_value_types",
}
_READING: Final[_Questions] = {
    reads.page_size: "max_limit over_limit",
    reads.pages: "omit_links clamp_pages current_page total total_pages",
    reads.order: "order",
    reads.addresses: "case_sensitive_emails max_emails",
}
_DELETING: Final[_Questions] = {
    writes.deletions: "delete_status max_delete_ids delete_limit_status"
}
_AFTER: Final[_Questions] = {
    reads.headers: "request_id rate_headers quota reset_granularity_ms wait_headers",
    writes.clocks: "clock_lags_s",
}
#: The facts of `first_write`.
_FIRST: Final = ("value_field", "zoneless_dates")
#: Facts that are not asked about, and why: a question would write what was not named.
_NEVER: Final = {
    "max_new_attributes": "it would make attributes",
    "unique_attribute_names": "it would make attributes",
    "abandoned_keeps_slot": "it would abandon writes",
}


@attrs.frozen
class ProbeReport:
    """What a probe settled, on `keys` values; most questions used one of this attribute type."""

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
        await probe._ask(_BEFORE)
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
        before. `report` gets a line for each part. Raises `RestoreError` if something could not be
        put back, and the service's error where nothing can be asked, after putting all back.
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
                await self._ask(_WRITING)
                report("Asking about pages")
                await self._ask(_READING)
                report("Asking about deletions")
                await self._ask(_DELETING)
            finally:
                await _to_the_end(self._put_back(state, state_file, report))
        else:
            report("The store does not pick the rows that it is asked for; nothing is written")
            if not facts.value("drop_query"):
                await self._ask(_READING)
        await self._ask(_AFTER)
        for name, why in _NEVER.items():
            facts.leave(name, why)
        facts.close(
            [name for name in FACTS if name not in facts], "nothing was written or seen of it"
        )
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

    async def _ask(self, questions: _Questions) -> None:
        for question, names in questions.items():
            calls, why = self.wire.calls, "answers do not show it"
            try:
                await question(self.target, self.facts)
            except Unsettled as reason:
                why = str(reason)
            except DecodeError as error:
                why = f"an answer can't be read: {error}"
            except APIError as error:
                if error.status in {401, 403, 404, 429} or error.status >= 500:
                    raise
                why = f"answered {error.status}"
            self.facts.close(names.split(), why, self.wire.calls - calls)


async def _to_the_end(work: Coroutine[Any, Any, object]) -> None:
    """Wait for work. A cancellation is raised after its end; a second one ends it."""
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
