"""Words and numbers of summaries."""

from __future__ import annotations

import pytest

from bc_attrvals.cli.text import duration, table


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (11.2, "12 s"), (59.1, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations_are_rounded_up(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_table_is_aligned() -> None:
    assert table([("a", "1,000"), ("long name", "7")]) == "  a          1,000\n  long name      7"
