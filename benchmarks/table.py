"""The figures that are kept, as the table of benchmarks/README.md."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import stream, upsert

Result = dict[str, Any]


def _figure(question: str, name: str) -> Callable[[Result], str]:
    def cell(result: Result) -> str:
        for one in result[question]["figures"]:
            if one["name"] == name:
                return f"{one['ratio']:.2f} ({one['low']:.2f}-{one['high']:.2f})"
        return "-"

    return cell


def _rivals(question: str, suffix: str) -> Callable[[Result], str]:
    cells = [
        _figure(question, name + suffix) for name in ("httpx", "bigc (sync)", "bigcommerce (sync)")
    ]
    return lambda result: " / ".join(cell(result).partition(" ")[0] for cell in cells)


def _memory(result: Result) -> str:
    growth = result["memory"]["growth"]
    return " / ".join(str(growth[job]["peak_grew_mib"]) for job in ("stream", "upsert"))


def _waiting(suffix: str) -> Callable[[Result], str]:
    def cell(result: Result) -> str:
        waiting = result["waiting"]
        return " / ".join(f"{waiting[kind + suffix]:.3f}" for kind in ("puts", "reads"))

    return cell


def _queue(result: Result) -> str:
    by_queued = result["waiting"]["scheduler_us_by_queued"]
    return " / ".join(str(by_queued[queued]) for queued in ("10", "10000"))


def _scaling(job: str) -> Callable[[Result], str]:
    def cell(result: Result) -> str:
        one = result["scaling"][job]
        return f"{one['of_ten_times_the_tenth']:.2f} ({one['low']:.2f}-{one['high']:.2f})"

    return cell


ROWS: list[tuple[str, str, Callable[[Result], str]]] = [
    (
        "`stream()`, CPU to aiohttp + orjson by hand, which makes dicts",
        "1.10",
        _figure("stream", stream.OURS),
    ),
    (
        "the same on uvloop (to by hand on asyncio)",
        "",
        _figure("stream", f"{stream.OURS}, uvloop"),
    ),
    ("by hand on uvloop, to the same", "", _figure("stream", f"{stream.BASELINE}, uvloop")),
    ("httpx / `bigc` / `bigcommerce` reading", "", _rivals("stream", ", dicts")),
    (
        "`upsert()`, lazy input, to aiohttp + orjson by hand",
        "1.15",
        _figure("upsert", upsert.OURS),
    ),
    (
        "`upsert_stream()`, which hands out each outcome, to the same",
        "",
        _figure("upsert", upsert.OURS_WITH_OUTCOMES),
    ),
    (
        "`upsert()` on uvloop (to by hand on asyncio)",
        "",
        _figure("upsert", f"{upsert.OURS}, uvloop"),
    ),
    ("by hand on uvloop, to the same", "", _figure("upsert", f"{upsert.BASELINE}, uvloop")),
    ("httpx / `bigc` / `bigcommerce` writing", "", _rivals("upsert", "")),
    ("peak grown by 500,000 values read / 200,000 written, MiB", "20", _memory),
    ("`import bc_attrvals` to `import aiohttp`", "1.15", _figure("memory", "import bc_attrvals")),
    (
        "`from bc_attrvals import Store` to the same",
        "",
        _figure("memory", "from bc_attrvals import Store"),
    ),
    ("of the ideal calls at 100 ms, 3 PUTs / 10 reads at once", "0.97", _waiting("_of_ideal")),
    ("the same by hand", "", _waiting("_by_hand_of_ideal")),
    ("scheduler, us a request with 10 / 10,000 queued", "flat", _queue),
    (
        "a million values read, CPU to ten times that of 100,000 (spread of these)",
        "0.9-1.1",
        _scaling("stream"),
    ),
    ("a million written", "0.9-1.1", _scaling("upsert")),
    ("a million synced, of which every tenth differs", "0.9-1.1", _scaling("sync")),
]

_TABLE = re.compile(r"^\| figure .*\n(\|.*\n)+", re.MULTILINE)


def make(files: Sequence[Path]) -> str:
    """Return the table of these results, a column for each."""
    results = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    versions = [file.stem.removeprefix("results-") for file in files]
    lines = [["figure (median, quartiles)", "aim", *versions], ["---"] * (2 + len(files))]
    lines += [[name, aim, *map(cell, results)] for name, aim, cell in ROWS]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def put_into(readme: Path, files: Sequence[Path]) -> None:
    """Replace the table of the README."""
    text = readme.read_text(encoding="utf-8")
    table = make(files)
    text, found = _TABLE.subn(lambda _: table, text)
    if found != 1:
        message = f"{readme} has {found} tables of figures"
        raise ValueError(message)
    readme.write_text(text, encoding="utf-8")
