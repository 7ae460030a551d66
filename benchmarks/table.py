"""The figures that are kept, as the tables of benchmarks/README.md."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import cpu

Result = dict[str, Any]


def _ratio(*path: str, name: str) -> Callable[[Result], str]:
    """Return a cell: the median ratio of a contender, and its quartiles."""

    def cell(result: Result) -> str:
        found: Any = result
        for key in path:
            found = found[key]
        for one in found:
            if one["name"] == name:
                return f"{one['ratio']:.2f} ({one['low']:.2f}-{one['high']:.2f})"
        return "-"

    return cell


def _rivals(kind: str) -> Callable[[Result], str]:
    cells = [_ratio("cpu", "tls", kind, name=name) for name in ("httpx", "bigc", "bigcommerce")]
    return lambda result: " / ".join(cell(result).partition(" ")[0] for cell in cells)


def _instructions(result: Result) -> str:
    counts = result["cpu"]["instructions"]
    return " / ".join(f"{counts[kind]['ratio']:.2f}" for kind in ("page", "put"))


def _memory(result: Result) -> str:
    growth = result["memory"]["growth"]
    return " / ".join(str(growth[job]["peak_grew_mib"]) for job in ("stream", "upsert"))


def _queue(result: Result) -> str:
    by_queued = result["cpu"]["scheduler_us_by_queued"]
    return " / ".join(str(by_queued[queued]) for queued in ("10", "10000"))


def _scaling(job: str) -> Callable[[Result], str]:
    def cell(result: Result) -> str:
        one = result["scaling"][job]
        return f"{one['of_ten_times_the_tenth']:.2f} ({one['low']:.2f}-{one['high']:.2f})"

    return cell


def _import(name: str) -> Callable[[Result], str]:
    return _ratio("memory", "figures", name=name)


ROWS: list[tuple[str, str, Callable[[Result], str]]] = [
    ("a page of 250, `stream()`", "0.97", _ratio("cpu", "tls", "page", name=cpu.STREAM)),
    ("a page of 250, `pages()`", "", _ratio("cpu", "tls", "page", name=cpu.PAGES)),
    ("a listing of 20 pages", "1.05", _ratio("cpu", "tls", "short", name=cpu.STREAM)),
    ("a PUT of 10, `upsert()`", "1.00", _ratio("cpu", "tls", "put", name=cpu.UPSERT)),
    (
        "a PUT of 10, `upsert_stream()`, each outcome handed out",
        "",
        _ratio("cpu", "tls", "put", name=cpu.UPSERT_STREAM),
    ),
    ("instructions of a page / a PUT", "", _instructions),
    ("on uvloop: a page", "", _ratio("cpu", "tls", "page", name=f"{cpu.STREAM}, uvloop")),
    ("on uvloop: a PUT", "", _ratio("cpu", "tls", "put", name=f"{cpu.UPSERT}, uvloop")),
    ("httpx / `bigc` / `bigcommerce`, a page", "", _rivals("page")),
    ("httpx / `bigc` / `bigcommerce`, a PUT", "", _rivals("put")),
    ("plain HTTP: a page of 250", "", _ratio("cpu", "plain", "page", name=cpu.STREAM)),
    ("plain HTTP: a listing of 20 pages", "", _ratio("cpu", "plain", "short", name=cpu.STREAM)),
    ("plain HTTP: a PUT of 10", "", _ratio("cpu", "plain", "put", name=cpu.UPSERT)),
    ("peak grown by 500,000 values read / 200,000 written, MiB", "20", _memory),
    ("`import bc_attrvals` to `import aiohttp`", "", _import("import bc_attrvals")),
    (
        "`from bc_attrvals import Store` to the same",
        "1.25",
        _import("from bc_attrvals import Store"),
    ),
    ("scheduler, us a request with 10 / 10,000 queued", "flat", _queue),
    ("a million values read, to ten times 100,000", "0.9-1.1", _scaling("stream")),
    ("half a million written, to ten times 50,000", "0.9-1.1", _scaling("upsert")),
    ("a million synced, of which every tenth differs", "0.9-1.1", _scaling("sync")),
]


def _lines(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def jobs_table(result: Result) -> str:
    """Return the table of jobs of one result, a column for each contender."""
    found = result["jobs"]
    names = list(dict.fromkeys(one["contender"] for one in found["results"]))
    lines: dict[str, list[str]] = {}
    killed = [{**one, "job": "upsert, killed halfway, run again"} for one in found["killed"]]
    for one in [*found["results"], *killed]:
        seconds, calls = one["seconds"] / one["ideal_seconds"], one["calls"] / one["ideal_calls"]
        figures = f"{calls:.2f}, {one['calls_429']}, {one['lost']}"
        # The time in which a process is killed and made says nothing.
        cell = figures if one in killed else f"{seconds:.2f}, {figures}"
        lines.setdefault(f"{one['job']}, {one['latency_ms']} ms", []).append(cell)
    return _lines(["job", *names], [[job, *cells] for job, cells in lines.items()])


def cpu_table(files: Sequence[Path]) -> str:
    """Return the table of CPU and memory, a column for each result."""
    results = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    versions = [file.stem.removeprefix("results-") for file in files]
    lines = [[name, aim, *(cell(result) for result in results)] for name, aim, cell in ROWS]
    return _lines(["figure (median, quartiles)", "aim", *versions], lines)


def put_into(readme: Path, files: Sequence[Path]) -> None:
    """Replace the tables of the README; that of jobs is of the newest version."""
    text = readme.read_text(encoding="utf-8")
    newest = json.loads(files[-1].read_text(encoding="utf-8"))
    for begins, table in (("job", jobs_table(newest)), ("figure ", cpu_table(files))):
        pattern = re.compile(rf"^\| {begins}.*\n(\|.*\n)+", re.MULTILINE)
        text, found = pattern.subn(lambda _, table=table: table, text)
        if found != 1:
            message = f"{readme} has {found} tables that begin with {begins!r}"
            raise ValueError(message)
    readme.write_text(text, encoding="utf-8")
