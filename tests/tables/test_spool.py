"""The spool gives back what it kept, in order and in bounded memory."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections import deque
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals import AttributeValueUpsert
from bc_attrvals.core.named_value import NamedValue
from bc_attrvals.tables.files import FileError
from bc_attrvals.tables.rows import BadRow
from bc_attrvals.tables.spool import Spool

IDS = st.integers(1, 2**31 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=255)
NAMES = st.text(st.characters(categories=["L", "N", "Zl"]), min_size=1, max_size=20)
CELLS = st.dictionaries(TEXT, TEXT | st.integers(-(2**63), 2**64 - 1) | st.booleans() | st.none())
ROWS = (
    st.builds(AttributeValueUpsert, IDS, IDS, TEXT, st.none() | IDS)
    | st.builds(
        NamedValue, IDS | st.sampled_from([" A@b.c ", "ü@x.example"]), IDS | st.just("Größe"), TEXT
    )
    | st.builds(BadRow, IDS, st.none() | TEXT, TEXT, CELLS, st.sampled_from(["line", "row"]))
    | st.integers(0, 2**63)
)


@settings(deadline=None, max_examples=200)
@given(st.lists(ROWS, max_size=30))
def test_what_was_kept_comes_back(rows) -> None:
    with ExitStack() as stack:
        spool = Spool(stack)
        assert list(spool.keep(rows)) == rows
        for _ in range(2):
            assert list(spool) == rows


def test_memory_does_not_grow_with_the_rows() -> None:
    with ExitStack() as stack:
        spool = Spool(stack)
        tracemalloc.start()
        try:
            rows = (AttributeValueUpsert(n, 1, "x" * 100) for n in range(1, 30_001))
            deque(spool.keep(rows), maxlen=0)
            assert sum(1 for _ in spool) == 30_000
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 500_000


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
@pytest.mark.parametrize("count", [1, 10_000])
def test_a_full_disk_is_named(monkeypatch, count) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: open("/dev/full", "w+b"))  # noqa: PTH123, SIM115
    rows = [AttributeValueUpsert(one, 1, "v") for one in range(1, count + 1)]
    with suppress(OSError), ExitStack() as stack:
        spool = Spool(stack)
        # What is small is written when it is read again.
        steps = chain(spool.keep(rows), spool)
        with pytest.raises(FileError, match=r"temporary files in /.*: No space left on device"):
            deque(steps, 0)
