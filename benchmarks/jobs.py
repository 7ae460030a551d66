"""What does a user wait and pay for? Whole jobs over TLS, under a quota, at three latencies.

Each contender has a process of its own, and the Sandbox another one, whose first window begins when
the job does. Seconds and calls are compared with the ideal: what the quota's windows, the requests
at once (ten reads, three writes) and the latency allow at best, with nothing sent twice. Values
lost are counted, too: rows that were not listed, and good values that are not stored. One upsert is
killed halfway and run again; its calls are those of both runs.
"""

from __future__ import annotations

import asyncio
import heapq
import sys
import time
from contextlib import ExitStack
from tempfile import TemporaryDirectory
from typing import Any

import attrs

from bc_attrvals import AttributeValueFilter, AttributeValueUpsert, Store
from benchmarks import rivals
from benchmarks.harness import Child, answer_all, installed, say
from benchmarks.rivals import Target
from benchmarks.sandbox_process import SandboxProcess

OURS = "bc_attrvals"
#: As many calls a second as the service's largest plans allow, in windows that are soon over.
QUOTA, WINDOW_S = 12, 0.6
LATENCIES_MS = (0, 30, 100)
#: The latency of the job that is killed.
_KILL_LATENCY_MS = 30
#: The store has this attribute and no other, so an item of another one is refused.
_ATTRIBUTE, _UNKNOWN = 1, 2


@attrs.frozen
class Job:
    """What is to be done, and the calls that it takes at least; `refused` of the values are bad."""

    name: str
    #: Values that the store holds at the start.
    stored: int
    #: Values that are given, and how many of them are to be written.
    given: int
    written: int
    refused: int = 0

    @property
    def phases(self) -> list[tuple[int, int]]:
        """The calls, and how many of them are sent at once: reads, then writes.

        A batch with a bad item is refused once, and sent again without it.
        """
        reads = -(-self.stored // 250)
        first = [(1, 1), (reads - 1, 10)] if reads else []
        writes = -(-self.written // 10) + self.refused
        return [*first, (writes, 3)] if writes else first

    @property
    def calls(self) -> int:
        """The number of calls of all phases."""
        return sum(calls for calls, _ in self.phases)

    def ideal_s(self, latency_s: float) -> float:
        """Return the least seconds, from the beginning of a window on."""
        now, left, opened_at = 0.0, QUOTA, 0.0
        for calls, at_once in self.phases:
            free = [now] * at_once
            for _ in range(calls):
                at = max(heapq.heappop(free), opened_at)
                while at >= opened_at + WINDOW_S or not left:
                    left, opened_at = QUOTA, opened_at + WINDOW_S
                    at = max(at, opened_at)
                left -= 1
                heapq.heappush(free, at + latency_s)
            now = max(free)
        return now

    def items(self) -> list[AttributeValueUpsert]:
        """Return the values that are given. The store holds others for those to be written."""
        every = self.given // self.refused if self.refused else 0
        return [
            AttributeValueUpsert(
                number,
                _UNKNOWN if every and number % every == 1 else _ATTRIBUTE,
                f"new {number}" if number <= self.written else f"v{number}",
            )
            for number in range(1, self.given + 1)
        ]


JOBS = (
    Job("list", stored=4_000, given=0, written=0),
    Job("upsert", stored=0, given=200, written=200),
    Job("upsert, 4 refused", stored=0, given=200, written=200, refused=4),
    Job("sync", stored=1_500, given=1_500, written=200),
)
_TINY = (Job("list", 300, 0, 0), Job("upsert", 0, 10, 10), Job("sync", 300, 300, 10))
_KILLED = JOBS[1]


@attrs.frozen
class Result:
    """One contender's run, or its two runs where it was killed in between."""

    contender: str
    job: str
    latency_ms: int
    seconds: float
    ideal_seconds: float
    calls: int
    ideal_calls: int
    calls_429: int
    lost: int


# --- in a process of its own ---------------------------------------------------------------------


async def _ours(job: Job, journal: str | None) -> int:
    items = job.items()
    async with Store.from_env() as store:
        values = store.attribute_values
        _wait_for_start()
        if not items:
            return sum([1 async for _ in values.stream()])
        if job.stored:
            await values.sync(items, scope=AttributeValueFilter(attribute_id_in=[_ATTRIBUTE]))
        else:
            await values.upsert(items, raise_on_failure=False, journal=journal)
    return 0


async def _rivals(contender: str, job: Job) -> int:
    items = job.items()
    opened, _ = rivals.CLIENTS[contender]
    async with opened(Target.from_env(), QUOTA, WINDOW_S) as client:
        _wait_for_start()
        if not items:
            return len(await rivals.list_all(client))
        work = rivals.sync_all if job.stored else rivals.put_all
        await work(client, items)
    return 0


def _wait_for_start() -> None:
    """Report that all is ready, and wait for the line that starts the job."""
    say("ready")
    sys.stdin.readline()


def _do(contender: str, job: dict[str, Any], journal: str | None) -> int:
    """Do a job; return how many rows were listed."""
    work = Job(**job)
    return asyncio.run(_ours(work, journal) if contender == OURS else _rivals(contender, work))


# --- in the process that measures ----------------------------------------------------------------


def _measure_one(
    child: Child, contender: str, job: Job, latency_ms: int, sandbox: SandboxProcess
) -> Result:
    child.ask(contender, attrs.asdict(job), None)
    sandbox.ask("reset")
    sandbox.ask("seed", job.stored)
    sandbox.ask("begin_window")
    began_at = time.perf_counter()
    listed = child.ask("go")
    seconds = time.perf_counter() - began_at
    return _result(contender, job, latency_ms, seconds, listed, sandbox)


def _measure_killed(contender: str, job: Job, sandbox: SandboxProcess) -> Result:
    """Run a job, kill it halfway, and run it again."""
    with TemporaryDirectory() as folder:
        work = (contender, attrs.asdict(job), f"{folder}/journal.db")
        with Child("benchmarks.jobs", **sandbox.environment) as child:
            child.ask(*work)
            sandbox.ask("reset")
            child.send("go")
            began_at = time.perf_counter()
            while sandbox.ask("facts")["calls"].get("upsert", 0) < job.calls // 2:
                time.sleep(0.01)
            child.process.kill()
        with Child("benchmarks.jobs", **sandbox.environment) as child:
            child.ask(*work)
            listed = child.ask("go")
            seconds = time.perf_counter() - began_at
    return _result(contender, job, _KILL_LATENCY_MS, seconds, listed, sandbox)


def _result(
    contender: str,
    job: Job,
    latency_ms: int,
    seconds: float,
    listed: int,
    sandbox: SandboxProcess,
) -> Result:
    facts = sandbox.ask("facts")
    written = sum(value.startswith("new ") for value in facts["values"])
    lost = job.written - job.refused - written if job.given else job.stored - listed
    return Result(
        contender=contender,
        job=job.name,
        latency_ms=latency_ms,
        seconds=round(seconds, 4),
        ideal_seconds=round(job.ideal_s(latency_ms / 1000), 4),
        calls=sum(facts["calls"].values()),
        ideal_calls=job.calls,
        calls_429=facts["statuses"].get("429", 0),
        lost=lost,
    )


def _show(one: Result) -> None:
    print(
        f"  {one.job:<18} {one.latency_ms:4} ms  {one.contender:<28}"
        f" {one.seconds / one.ideal_seconds:6.2f} {one.calls / one.ideal_calls:6.2f}"
        f" {one.calls_429:5} {one.lost:5}",
        flush=True,
    )


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Measure; see the module."""
    jobs, latencies_ms = (_TINY, (5,)) if quick else (JOBS, LATENCIES_MS)
    contenders = [OURS, *(name for name, (_, needs) in rivals.CLIENTS.items() if installed(*needs))]
    results, killed = [], []
    print("seconds and calls to the ideal, 429s, values lost")
    with ExitStack() as stack:
        sandbox = stack.enter_context(
            SandboxProcess(
                quota=QUOTA,
                window_s=WINDOW_S,
                https=True,
                attributes=[["a", "string", _ATTRIBUTE]],
            )
        )
        children = {
            name: stack.enter_context(Child("benchmarks.jobs", **sandbox.environment))
            for name in contenders
        }
        for name, child in children.items():
            for job in _TINY:
                # Loads what is imported on first need.
                _measure_one(child, name, job, 0, sandbox)
        for latency_ms in latencies_ms:
            sandbox.ask("set_latency", latency_ms)
            for job in jobs:
                for name, child in children.items():
                    results.append(_measure_one(child, name, job, latency_ms, sandbox))
                    _show(results[-1])
        sandbox.ask("set_latency", _KILL_LATENCY_MS)
        print("killed halfway and run again")
        for name in contenders:
            killed.append(_measure_killed(name, _KILLED, sandbox))
            _show(killed[-1])
    return {
        "quota": QUOTA,
        "window_s": WINDOW_S,
        "results": [attrs.asdict(one) for one in results],
        "killed": [attrs.asdict(one) for one in killed],
    }


if __name__ == "__main__":
    answer_all(_do)
