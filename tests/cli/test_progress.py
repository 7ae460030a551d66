"""Progress: the time to go under a quota, and lines where no bar can be drawn."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from types import SimpleNamespace

import pytest

from bc_attrvals import QuotaSnapshot, Store
from bc_attrvals.cli import progress as progress_module
from bc_attrvals.cli.progress import Progress, seconds_to_go
from bc_attrvals.cli.settings import Settings
from bc_attrvals.core.requests import Operation
from bc_attrvals.events import (
    Event,
    QuotaExhausted,
    RequestAnswered,
    RequestRetrying,
    RequestSent,
)
from tests.cli.tables import csv_of, posix, read_terminal

UNKNOWN = QuotaSnapshot()


def to_go(done: int, total: int, elapsed_s: float, quota: QuotaSnapshot = UNKNOWN) -> float | None:
    return seconds_to_go(done=done, total=total, elapsed_s=elapsed_s, calls=done // 10, quota=quota)


def test_without_a_quota_the_rate_tells() -> None:
    assert to_go(0, 1000, 5.0) is None
    assert to_go(250, 1000, 5.0) == pytest.approx(15.0)
    assert to_go(1000, 1000, 5.0) == 0


def test_what_the_window_still_has_room_for_takes_its_rate() -> None:
    quota = QuotaSnapshot(quota=150, left=100, resets_in_s=20.0)
    assert to_go(500, 1000, 5.0, quota) == pytest.approx(5.0)


def test_calls_beyond_the_window_wait_for_the_windows_to_come() -> None:
    quota = QuotaSnapshot(quota=150, left=0, resets_in_s=20.0)
    # 1,500 values in a burst of 10 s; 13,500 more are nine windows of 150 calls.
    assert to_go(1500, 15_000, 10.0, quota) == pytest.approx(20 + 8 * 30)
    # Over several windows the rate holds the waits already.
    assert to_go(3000, 4500, 60.0, quota) == pytest.approx(30.0)


def test_windows_are_as_long_as_the_service_says() -> None:
    quota = QuotaSnapshot(quota=150, left=0, resets_in_s=2.0, window_s=3.0)
    assert to_go(1500, 15_000, 1.0, quota) == pytest.approx(2 + 8 * 3)
    assert to_go(3000, 4500, 6.0, quota) == pytest.approx(3.0)


def test_calls_that_the_next_window_has_room_for_wait_for_its_beginning_alone() -> None:
    quota = QuotaSnapshot(quota=150, left=0, resets_in_s=5.0)
    # 100 calls beyond this window, of the 150 of the next one.
    assert to_go(1000, 2000, 5.0, quota) == pytest.approx(5.0)


def test_off_a_terminal_a_line_comes_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now)
    with Progress(Settings(), _IDLE, "Storing", 1000) as progress:
        for _ in range(200):
            now += 0.125
            progress.advance()
        progress.begin("Deleting", 20, done=10)
        now += 11
        progress.reach(15)
    assert capsys.readouterr().err.splitlines() == [
        "Storing 80 of 1,000, 8/s, 1 min 55 s to go",
        "Storing 160 of 1,000, 8/s, 1 min 45 s to go",
        "Deleting 15 of 20, 0/s, 11 s to go",
    ]


def test_look_ups_of_names_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now)
    store = _Idle()
    resources = ["customers/attributes", "customers", "customers", "customers/attribute-values"]
    with Progress(Settings(), store, "Storing", 40) as progress:  # type: ignore[arg-type]
        for resource in resources:
            store.hear(RequestAnswered(Operation.READ, 200, 0.1, 10, None, resource=resource))
        now += 11
        progress.reach(22)
    assert capsys.readouterr().err == "Storing 22 of 40, 3 look-ups, 2/s, 9 s to go\n"


@pytest.mark.looptime
async def test_a_wait_is_named_while_nothing_moves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = asyncio.get_running_loop()
    clock = SimpleNamespace(monotonic=loop.time)
    monkeypatch.setattr(progress_module, "time", clock)
    store = _Idle()
    with Progress(Settings(), store, "Storing", 1000) as progress:  # type: ignore[arg-type]
        ticking = asyncio.create_task(progress.tick())
        store.queued = {"write": 5}
        store.hear(QuotaExhausted(450, 25.0))
        await asyncio.sleep(20.75)
        store.queued = {}
        store.hear(RequestRetrying(Operation.WRITE, 2, 12.0, "ServerError"))
        await asyncio.sleep(10)
        store.in_flight = {"write": 3}
        store.hear(RequestSent(Operation.WRITE, 2))
        await asyncio.sleep(10)
        store.hear(RequestAnswered(Operation.WRITE, 200, 9.0, 10, None))
        progress.advance(10)
        await asyncio.sleep(10)
        ticking.cancel()
    assert capsys.readouterr().err.splitlines() == [
        "Storing 0 of 1,000, waiting 15 s for quota",
        "Storing 0 of 1,000, waiting 5 s for quota",
        "Storing 0 of 1,000, next try in 3 s (ServerError)",
        "Storing 0 of 1,000, no answer for 10 s",
        "Storing 10 of 1,000, 0/s, no answer for 10 s, 1 h 22 min to go",
    ]


def test_calls_in_flight_have_taken_their_units() -> None:
    quota = QuotaSnapshot(quota=20, left=17, resets_in_s=6.0)
    # 20 of 40 calls are done and three are on the wire: the window has room for the other 17.
    rest = {"done": 200, "total": 400, "elapsed_s": 2.0, "quota": quota}
    assert seconds_to_go(**rest, calls=23, in_flight=3) == pytest.approx(2.0)
    assert seconds_to_go(**rest, calls=23) == pytest.approx(6.0)


def test_a_spent_quota_that_nobody_waits_for_is_no_wait(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now)
    store = _Idle()
    store.quota = QuotaSnapshot(quota=20, left=0, resets_in_s=6.0)
    with Progress(Settings(), store, "Storing", 10) as progress:  # type: ignore[arg-type]
        now += 10
        progress.advance(10)
        store.queued = {"write": 1}
        now += 10
        progress.advance(0)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "Storing 10 of 10, 1/s, 0 calls left, 0 s to go"
    assert second == "Storing 10 of 10, 0/s, waiting 6 s for quota, 0 s to go"


@posix
def test_on_a_terminal_a_wait_for_quota_is_redrawn_each_second_and_named(serve, tmp_path) -> None:
    values = tmp_path / "values.csv"
    values.write_text(csv_of(51))
    with serve(quota=3, window_s=4) as served:
        terminal, end = pty.openpty()
        variables = {"COLUMNS": "60", "TERM": "xterm", "NO_COLOR": "1"}
        job = served.start("upsert", values, stderr=end, variables=variables)
        os.close(end)
        drawn: list[tuple[float, str]] = []
        # The terminal ends with the process.
        with suppress(OSError):
            while text := os.read(terminal, 65_536).decode(errors="replace"):
                drawn.append((time.monotonic(), text))
        os.close(terminal)
        job.communicate(timeout=30)
    assert job.returncode == 0
    waits = [(at, int(words)) for at, text in drawn for words in WAIT.findall(text)]
    # The window lasts four seconds, of which a slow start may take two.
    assert {2, 1} <= {seconds for _, seconds in waits} <= {4, 3, 2, 1}
    gaps = [after - before for (before, _), (after, _) in pairwise(waits)]
    assert max(gaps) < 1.0


WAIT = re.compile(r"waiting (\d+) s for quota")


@pytest.mark.parametrize("settings", [Settings(quiet=True), Settings(json=True)])
def test_quiet_and_json_show_no_progress(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now)
    with Progress(settings, _IDLE, "Storing", 10) as progress:
        now += 60
        progress.advance(5)
    assert capsys.readouterr() == ("", "")


class _Idle:
    """A Store whose events and statistics a test makes."""

    def __init__(self) -> None:
        self.hear: Callable[[Event], object] = lambda _: None
        self.in_flight: dict[str, int] = {}
        self.queued: dict[str, int] = {}
        self.quota = UNKNOWN

    def statistics(self) -> SimpleNamespace:
        return SimpleNamespace(
            requests=0, quota=self.quota, in_flight=self.in_flight, queued=self.queued
        )

    def subscribe(self, callback: Callable[[Event], object]) -> None:
        self.hear = callback


_IDLE: Store = _Idle()  # type: ignore[assignment]


@posix
@pytest.mark.parametrize("colour", [True, False])
def test_progress_is_shown_on_a_terminal_and_heeds_no_color(serve, tmp_path, colour) -> None:
    values = tmp_path / "in.csv"
    values.write_text(csv_of(100))
    with serve(quota=1000, latency_ms=50) as served:
        ours, theirs = pty.openpty()
        variables = {"TERM": "xterm", "COLUMNS": "120"} | ({} if colour else {"NO_COLOR": "1"})
        process = served.start("upsert", values, stderr=theirs, variables=variables)
        os.close(theirs)
        shown = read_terminal(ours)
        stdout, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        assert b"Storing" in shown
        assert b"calls left" in shown
        assert (b"\x1b[3" in shown or b"\x1b[1;3" in shown) == colour
        assert stdout.startswith(b"Stored 100 values")
