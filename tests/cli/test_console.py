"""Questions before data is deleted, on a terminal; words and numbers of summaries."""

from __future__ import annotations

import os
import pty

import pytest

from bc_attrvals.cli.console import duration, table
from tests.cli.tables import posix


@posix
@pytest.mark.parametrize(("answer", "status", "left"), [("n", 2, 3), ("y", 0, 0)])
def test_delete_asks_on_a_terminal(serve, answer, status, left) -> None:
    with serve() as served:
        served.seed((1, 1, "a"), (2, 1, "b"), (3, 1, "c"))
        ours, theirs = pty.openpty()
        process = served.start("delete", "--everything", stdin=theirs)
        os.write(ours, f"{answer}\n".encode())
        _, stderr = process.communicate(timeout=30)
        os.close(ours)
        os.close(theirs)
        assert b"Delete 3 values - every value of the store? [y/N]" in stderr
        assert process.returncode == status
        assert len(served.values()) == left


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (11.2, "12 s"), (59.1, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations_are_rounded_up(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_table_is_aligned() -> None:
    assert table([("a", "1,000"), ("long name", "7")]) == "  a          1,000\n  long name      7"
