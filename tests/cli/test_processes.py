"""What only a process of its own shows: signals, pipes, terminals."""

from __future__ import annotations

import os
import pty
import re
import sys
import time

import pytest

from tests.cli.tables import HEAD

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and terminals of POSIX")


def test_a_wait_for_quota_is_redrawn_every_second_with_what_is_left_of_it(serve, tmp_path) -> None:
    table = tmp_path / "in.csv"
    table.write_text(HEAD + "".join(f"{customer},1,v\n" for customer in range(1, 52)))
    with serve(quota=3, window_s=4) as served:
        ours, theirs = pty.openpty()
        variables = {"TERM": "xterm", "COLUMNS": "120", "NO_COLOR": "1"}
        process = served.start("upsert", table, stderr=theirs, variables=variables)
        os.close(theirs)
        drawn: list[tuple[float, bytes]] = []
        while True:
            try:
                drawn.append((time.monotonic(), os.read(ours, 4096)))
            except OSError:
                break
        process.communicate(timeout=30)
        os.close(ours)
        assert process.returncode == 0
    waits = [
        (at, int(left))
        for at, text in drawn
        for left in re.findall(rb"next calls in (\d+) s", text)
    ]
    # A window lasts four seconds, and one of them is waited for.
    assert {3, 2, 1} <= {left for _, left in waits} <= {4, 3, 2, 1}
    assert len(waits) >= waits[-1][0] - waits[0][0]
    assert b"waiting for quota" in b"".join(text for _, text in drawn)


@pytest.mark.parametrize("colour", [True, False])
def test_progress_is_shown_on_a_terminal_and_heeds_no_color(serve, tmp_path, colour) -> None:
    table = tmp_path / "in.csv"
    table.write_text(HEAD + "".join(f"{customer},1,v\n" for customer in range(1, 101)))
    with serve(quota=1000, latency_ms=50) as served:
        ours, theirs = pty.openpty()
        variables = {"TERM": "xterm", "COLUMNS": "120"} | ({} if colour else {"NO_COLOR": "1"})
        process = served.start("upsert", table, stderr=theirs, variables=variables)
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 4096)
            except OSError:
                break
        stdout, _ = process.communicate(timeout=30)
        os.close(ours)
        assert process.returncode == 0
        assert b"Storing" in shown
        assert b"calls left" in shown
        assert (b"\x1b[3" in shown or b"\x1b[1;3" in shown) == colour
        assert stdout.startswith(b"Stored 100 values")
