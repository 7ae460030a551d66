"""`demo`: the whole library against an emulated store, checked value by value."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Final

import attrs
import click

from bc_attrvals.cli.console import rate, refuse
from bc_attrvals.cli.file_options import FileOptions, input_options
from bc_attrvals.cli.input_check import check
from bc_attrvals.cli.interrupts import run
from bc_attrvals.cli.options import command, with_options
from bc_attrvals.cli.progress import Progress
from bc_attrvals.cli.sample_data import sample_values
from bc_attrvals.cli.sandbox_options import quota_options
from bc_attrvals.cli.settings import Settings, with_settings
from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValueUpsert, Key
from bc_attrvals.sandbox import Sandbox
from bc_attrvals.store import Store
from bc_attrvals.tables.files import open_input
from bc_attrvals.tables.reader import read_values

_BY_ID: Final = "the demo takes customer and attribute ids"
_VALUES: Final = 10_000
_UPDATES: Final = 300


@command(
    "bc-attrvals demo",
    "bc-attrvals demo --values 50000 --quota none",
    "bc-attrvals demo --input scores.csv --wide --customer-column ID --attribute x=1",
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
@partial(with_options, options=quota_options("450", 1.0))
@click.option("--input", "file", metavar="FILE", help="Take these values instead (see upsert).")
@input_options
@with_settings
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
    if file is None:
        items = list(sample_values(count))
    else:
        shape = options.input_layout(file)
        refuse(not shape.by_id, _BY_ID)
        with ExitStack() as stack, open_input(file) as source, options.hinted():
            rows, good = check(read_values(source, shape), source.name, settings, stack)
            items = [one for one in rows if isinstance(one, AttributeValueUpsert)]
        refuse(len(items) != good, _BY_ID)
    refuse(not items, "there are no values to store")
    demo = _Demo(settings, items, quota, window_s)
    run(lambda _: demo.run())
    settings.finish("demo", demo.text(), demo.as_dict(), 0 if demo.is_equal else 1)


@attrs.define
class _Step:
    """One step: what it did with how many values, in calls and seconds."""

    name: str
    values: int = 0
    calls: int = 0
    seconds: float = 0.0
    equal: bool = True


@attrs.define(eq=False)
class _Demo:
    """The steps of the demo, one after the other, and what they found."""

    _settings: Settings
    _items: Sequence[AttributeValueUpsert]
    _quota: int | None
    _window_s: float
    _expected: dict[Key, str] = attrs.field(factory=dict, init=False)
    _steps: list[_Step] = attrs.field(factory=list, init=False)
    _rate_limited: int = attrs.field(default=0, init=False)
    _retries: int = attrs.field(default=0, init=False)

    async def run(self) -> None:
        async with (
            Sandbox(quota=self._quota, window_s=self._window_s) as sandbox,
            Store(sandbox.store_hash, sandbox.access_token, base_url=sandbox.url) as store,
        ):
            await self._store(store, "stored", self._items)
            await self._compare(store)
            await self._store(store, "updated", list(self._updates()))
            await self._delete(store)
            await self._compare(store)
            statistics = store.statistics()
            self._retries = statistics.retries
            self._rate_limited = max(sandbox.count_429, statistics.rate_limited)

    @property
    def is_equal(self) -> bool:
        return all(step.equal for step in self._steps)

    def as_dict(self) -> dict[str, object]:
        return {
            "equal": self.is_equal,
            "calls": sum(step.calls for step in self._steps),
            "seconds": round(sum(step.seconds for step in self._steps), 3),
            "rate_limited": self._rate_limited,
            "retries": self._retries,
            "steps": [attrs.asdict(step) for step in self._steps],
        }

    def text(self) -> str:
        allowed = "without a quota"
        if self._quota is not None:
            allowed = f"which allows {self._quota:,} calls in {self._window_s:g} s"
        lines = [f"An emulated store on this computer, {allowed}."]
        lines += [
            f"  {step.name:<22}{step.values:>9,} values {step.calls:>7,} calls "
            f"{step.seconds:>6.2f} s {rate(step.values, step.seconds):>17}"
            for step in self._steps
        ]
        sums = self.as_dict()
        lines += [
            f"Calls: {sums['calls']:,}, retries: {self._retries:,}, seconds: {sums['seconds']:.1f}",
            f"429s seen: {self._rate_limited}",
            f"Equal, value by value: {'yes' if self.is_equal else 'NO'}",
        ]
        return "\n".join(lines)

    def _updates(self) -> Iterator[AttributeValueUpsert]:
        every = max(1, len(self._expected) // _UPDATES)
        for customer_id, attribute_id in list(self._expected)[::every]:
            yield AttributeValueUpsert(customer_id, attribute_id, f"updated {customer_id}")

    @contextmanager
    def _step(self, store: Store, name: str, count: int) -> Iterator[tuple[_Step, Progress]]:
        step = _Step(name)
        began_at, before = time.monotonic(), store.statistics().requests
        with Progress(self._settings, store, name.capitalize(), count) as progress:
            yield step, progress
        step.seconds = time.monotonic() - began_at
        step.calls = store.statistics().requests - before
        self._steps.append(step)

    async def _store(self, store: Store, name: str, items: Sequence[AttributeValueUpsert]) -> None:
        self._expected.update((item.key, item.value) for item in items)
        with self._step(store, name, len(items)) as (step, progress):
            async for outcome in store.attribute_values.upsert_stream(items):
                step.values += outcome.ok
                progress.advance()
            # One value is stored of equal keys.
            step.equal = step.values == len({item.key for item in items})

    async def _compare(self, store: Store) -> None:
        wrong = 0
        seen: set[Key] = set()
        wanted = AttributeValueFilter(attribute_id_in={key[1] for key in self._expected})
        with self._step(store, "read and compared", len(self._expected)) as (step, progress):
            async for value in store.attribute_values.stream(wanted):
                wrong += value.key in seen or self._expected.get(value.key) != value.value
                seen.add(value.key)
                progress.advance()
            step.values = len(seen)
            step.equal = not wrong and len(seen) == len(self._expected)

    async def _delete(self, store: Store) -> None:
        attribute_id = max(attribute_id for _, attribute_id in self._expected)
        wanted = [key for key in self._expected if key[1] == attribute_id]
        for key in wanted:
            del self._expected[key]
        with self._step(store, f"deleted (attribute {attribute_id})", len(wanted)) as (step, _):
            report = await store.attribute_values.delete_where(
                AttributeValueFilter(attribute_id_in=[attribute_id])
            )
            step.values = report.deleted
            step.equal = report.deleted == len(wanted)
