"""`demo`: the whole library against an emulated store, checked value by value."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Final

import attrs
import click

from bc_attrvals.cli.checking import check
from bc_attrvals.cli.commands.sandbox import quota_option
from bc_attrvals.cli.file_options import FileOptions, input_options
from bc_attrvals.cli.interrupts import Stopper, run
from bc_attrvals.cli.progress import Progress
from bc_attrvals.cli.sample import sample_values
from bc_attrvals.cli.settings import Settings, output_options, pass_settings
from bc_attrvals.cli.text import examples, rate
from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValueUpsert, Key
from bc_attrvals.sandbox import Sandbox
from bc_attrvals.store import Store
from bc_attrvals.tables.files import open_input
from bc_attrvals.tables.reading import read_values

__all__ = ["demo"]

_VALUES: Final = 10_000
_UPDATES: Final = 300


@click.command(
    epilog=examples(
        "bc-attrvals demo",
        "bc-attrvals demo --values 50000 --quota none",
        "bc-attrvals demo --input scores.csv --wide --customer-column ID --attribute x=1",
    )
)
@click.option(
    "--values",
    "count",
    type=click.IntRange(1),
    default=_VALUES,
    show_default=True,
    metavar="N",
    help="How many values to make up.",
)
@quota_option("450")
@click.option(
    "--window-s",
    type=click.FloatRange(0.05, 3600),
    default=1.0,
    show_default=True,
    help="Of the quota; the service's own is 30.",
)
@click.option("--input", "file", metavar="FILE", help="Take these values instead (see upsert).")
@input_options
@output_options()
@pass_settings
def demo(
    settings: Settings,
    *,
    count: int,
    quota: int | None,
    window_s: float,
    file: str | None,
    options: FileOptions,
) -> None:
    """Store, read back, update and delete values in an emulated store, and compare each of them.

    Nothing leaves this computer. Exit status 0 says that every value was as it should be.
    """
    if quota == 0:
        raise click.UsageError("a quota of 0 allows nothing")
    with ExitStack() as stack:
        if file is None:
            items = list(sample_values(count))
        else:
            shape = options.layout(file)
            source = stack.enter_context(open_input(file))
            check(read_values(source, shape), source.name, settings)
            entries = read_values(source, shape)
            items = [one for one in entries if isinstance(one, AttributeValueUpsert)]
        if not items:
            raise click.UsageError("there are no values to store")
        shown = _Demo(settings, items, quota, window_s)
        result = run(shown.run)
    settings.summarize(result.told(), result.as_dict())
    click.get_current_context().exit(0 if result.equal else 1)


@attrs.define
class _Step:
    """One step: what it did with how many values, in calls and seconds."""

    name: str
    values: int
    calls: int
    seconds: float
    equal: bool = True


@attrs.define
class _Result:
    """What the demo found."""

    allowed: str
    steps: list[_Step] = attrs.field(factory=list)
    too_many_requests: int = 0
    retries: int = 0

    @property
    def equal(self) -> bool:
        """Whether all comparisons came out equal."""
        return all(step.equal for step in self.steps)

    def told(self) -> str:
        """Return the summary in lines."""
        lines = [f"An emulated store on this computer, {self.allowed}."]
        lines += [
            f"  {step.name:<22}{step.values:>9,} values {step.calls:>7,} calls "
            f"{step.seconds:>6.2f} s {rate(step.values, step.seconds):>17}"
            for step in self.steps
        ]
        calls = sum(step.calls for step in self.steps)
        seconds = sum(step.seconds for step in self.steps)
        lines.append(f"Calls: {calls:,}, retries: {self.retries:,}, seconds: {seconds:.1f}")
        lines.append(f"429s seen: {self.too_many_requests}")
        lines.append(f"Equal, value by value: {'yes' if self.equal else 'NO'}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, object]:
        """Return the summary for a machine."""
        return {
            "command": "demo",
            "exit_status": 0 if self.equal else 1,
            "equal": self.equal,
            "calls": sum(step.calls for step in self.steps),
            "seconds": round(sum(step.seconds for step in self.steps), 3),
            "rate_limited": self.too_many_requests,
            "retries": self.retries,
            "steps": [attrs.asdict(step) for step in self.steps],
        }


class _Demo:
    """The steps of the demo, one after the other."""

    def __init__(
        self,
        settings: Settings,
        items: Sequence[AttributeValueUpsert],
        quota: int | None,
        window_s: float,
    ) -> None:
        self._settings = settings
        self._items = items
        self._quota = quota
        self._window_s = window_s
        self._expected: dict[Key, str] = {}

    async def run(self, stopper: Stopper) -> _Result:
        """Take all steps; return what was found."""
        del stopper
        if self._quota is None:
            allowed = "without a quota"
        else:
            allowed = f"which allows {self._quota:,} calls in {self._window_s:g} s"
        result = _Result(allowed)
        async with (
            Sandbox(quota=self._quota, window_s=self._window_s) as sandbox,
            Store(sandbox.store_hash, sandbox.access_token, base_url=sandbox.url) as store,
        ):
            await self._store(store, result, "stored", self._items)
            await self._compare(store, result)
            await self._store(store, result, "updated", list(self._updates()))
            await self._delete(store, result)
            await self._compare(store, result)
            result.retries = store.statistics().retries
            result.too_many_requests = max(sandbox.count_429, store.statistics().rate_limited)
        return result

    def _updates(self) -> Iterator[AttributeValueUpsert]:
        every = max(1, len(self._expected) // _UPDATES)
        for customer_id, attribute_id in islice(list(self._expected), 0, None, every):
            yield AttributeValueUpsert(customer_id, attribute_id, f"updated {customer_id}")

    async def _store(
        self, store: Store, result: _Result, name: str, items: Sequence[AttributeValueUpsert]
    ) -> None:
        self._expected.update((item.key, item.value) for item in items)
        step = _Step(name, 0, store.statistics().requests, time.monotonic())
        with Progress(self._settings, store, name.capitalize(), len(items)) as progress:
            async for outcome in store.attribute_values.upsert_stream(items):
                step.values += outcome.ok
                progress.advance()
        # Keys that come twice in an input are stored once.
        step.equal = step.values == len({item.key for item in items})
        self._finish(store, result, step)

    async def _compare(self, store: Store, result: _Result) -> None:
        step = _Step("read and compared", 0, store.statistics().requests, time.monotonic())
        wrong = 0
        seen: set[Key] = set()
        with Progress(self._settings, store, "Comparing", len(self._expected)) as progress:
            wanted = AttributeValueFilter(attribute_id_in={key[1] for key in self._expected})
            async for value in store.attribute_values.stream(wanted):
                wrong += value.key in seen or self._expected.get(value.key) != value.value
                seen.add(value.key)
                progress.advance()
        step.values = len(seen)
        step.equal = not wrong and len(seen) == len(self._expected)
        self._finish(store, result, step)

    async def _delete(self, store: Store, result: _Result) -> None:
        attribute_id = max(attribute_id for _, attribute_id in self._expected)
        step = _Step(
            f"deleted (attribute {attribute_id})",
            0,
            store.statistics().requests,
            time.monotonic(),
        )
        wanted = [key for key in self._expected if key[1] == attribute_id]
        for key in wanted:
            del self._expected[key]
        report = await store.attribute_values.delete_where(
            AttributeValueFilter(attribute_id_in=[attribute_id])
        )
        step.values = report.deleted
        step.equal = report.deleted == len(wanted)
        self._finish(store, result, step)

    def _finish(self, store: Store, result: _Result, step: _Step) -> None:
        step.calls = store.statistics().requests - step.calls
        step.seconds = time.monotonic() - step.seconds
        result.steps.append(step)
