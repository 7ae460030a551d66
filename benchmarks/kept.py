"""Writes the results of a run: JSON, the plot, and the text between the markers of two READMEs.

A marker is `<!-- NAME -->`, and its text ends at `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import cpu, jobs, plot
from benchmarks.harness import PACKAGES

Result = dict[str, Any]
_PARTS = ("environment", "jobs", "cpu", "instructions", "growth", "took_s")
Cell = Callable[[Result], str]


def _spread(one: dict[str, Any], key: str = "ratio") -> str:
    return f"{one[key]:.2f} ({one['low']:.2f}-{one['high']:.2f})"


def _figure(result: Result, how: str, kind: str, name: str) -> dict[str, Any] | None:
    return next((one for one in result["cpu"][how][kind] if one["name"] == name), None)


def _ratio(kind: str, name: str, how: str = "tls") -> Cell:
    """Return a cell: the median ratio of a contender, and its quartiles."""

    def cell(result: Result) -> str:
        found = _figure(result, how, kind, name)
        return "-" if found is None else _spread(found)

    return cell


def _others(kind: str) -> Cell:
    cells = [_ratio(kind, name) for name in cpu.OTHERS]
    return lambda result: " / ".join(cell(result).partition(" ")[0] for cell in cells)


def _per_value(result: Result) -> str:
    both = (_figure(result, "tls", "sync", name) for name in (cpu.SYNC, cpu.JOURNALLED))
    return " / ".join("-" if one is None else f"{one['us']:.1f}" for one in both)


def _instructions(result: Result) -> str:
    counts = result["instructions"]
    return " / ".join(f"{counts[kind]['ratio']:.2f}" for kind in ("page", "put") if kind in counts)


def _queue(result: Result) -> str:
    return " / ".join(map(str, result["cpu"]["scheduler_us_by_queued"].values()))


def _import(statement: str) -> Cell:
    return lambda result: next(
        _spread(one) for one in result["cpu"]["imports"] if one["name"] == statement
    )


def _time(job: str) -> Cell:
    return lambda result: _spread(result["growth"][job], "of_ten_times_the_tenth")


def _memory(result: Result) -> str:
    return " / ".join(str(one["peak_grew_mib"]) for one in result["growth"].values())


_ROWS: list[tuple[str, str, Cell]] = [
    ("a page of 250, `stream()`", "0.97", _ratio("page", cpu.STREAM)),
    ("a page of 250, `pages()`", "", _ratio("page", cpu.PAGES)),
    ("a listing of 20 pages", "1.05", _ratio("short", cpu.STREAM)),
    ("a PUT of 10, `upsert()`", "1.00", _ratio("put", cpu.UPSERT)),
    (
        "the same, `upsert_stream()`: each outcome is handed out",
        "",
        _ratio("put", cpu.UPSERT_STREAM),
    ),
    ("instructions of a page / a PUT", "", _instructions),
    ("a sync with a journal, to one without", "", _ratio("sync", cpu.JOURNALLED)),
    ("a sync without / with a journal, us a value", "", _per_value),
    ("on uvloop: a page", "", _ratio("page", f"{cpu.STREAM}, uvloop")),
    ("on uvloop: a PUT", "", _ratio("put", f"{cpu.UPSERT}, uvloop")),
    ("httpx / `bigc` / `bigcommerce`, a page", "", _others("page")),
    ("httpx / `bigc` / `bigcommerce`, a PUT", "", _others("put")),
    ("plain HTTP: a page of 250", "", _ratio("page", cpu.STREAM, "plain")),
    ("plain HTTP: a listing of 20 pages", "", _ratio("short", cpu.STREAM, "plain")),
    ("plain HTTP: a PUT of 10", "", _ratio("put", cpu.UPSERT, "plain")),
    ("`import bc_attrvals` to `import aiohttp`", "", _import("import bc_attrvals")),
    ("`from bc_attrvals import Store` to it", "1.25", _import("from bc_attrvals import Store")),
    ("scheduler, us a request with 10 / 10,000 queued", "flat", _queue),
    ("a million values listed, to ten times 100,000", "0.9-1.1", _time("stream")),
    ("half a million written, to ten times 50,000", "0.9-1.1", _time("upsert")),
    ("half a million synced, to ten times 50,000", "0.9-1.1", _time("sync")),
    ("peak memory of these three above that of a tenth, MiB", "20", _memory),
]


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _seconds(one: dict[str, Any]) -> float:
    return float(one["seconds"] / one["ideal_seconds"])


def _calls(one: dict[str, Any]) -> float:
    return float(one["calls"] / one["ideal_calls"])


def _jobs(result: Result) -> str:
    """Return the table of jobs of one result, a column for each contender, and a note."""
    found = result["jobs"]
    names = list(dict.fromkeys(one["contender"] for one in found["results"]))
    lines: dict[str, list[str]] = {}
    killed = [{**one, "job": "upsert, killed halfway, run again"} for one in found["killed"]]
    for one in [*found["results"], *killed]:
        figures = f"{_calls(one):.2f}, {one['calls_429']}, {one['lost']}"
        # The time includes killing and starting a process, and says nothing.
        cell = figures if one in killed else f"{_seconds(one):.2f}, {figures}"
        lines.setdefault(f"{one['job']}, {one['latency_ms']} ms", []).append(cell)
    listed, upserted, _, synced = jobs.JOBS
    note = (
        f"- The quota is of {found['quota']} calls in {found['window_s']} s. The list is of "
        f"{listed.stored:,} values, the upserts are of {upserted.given:,}, the sync compares "
        f"{synced.given:,} and writes {synced.written:,}."
    )
    table = _table(["job", *names], [[job, *cells] for job, cells in lines.items()])
    return f"{table}\n\n{textwrap.fill(note, 104, subsequent_indent='  ')}"


def _cpu(results: dict[str, Result]) -> str:
    """Return the table of what calls cost, a column for each interpreter."""
    lines = [[name, aim, *map(cell, results.values())] for name, aim, cell in _ROWS]
    return _table(["figure (median, quartiles)", "aim", *results], lines)


def _surroundings(results: dict[str, Result]) -> str:
    """Return one paragraph on what the figures depend on."""
    runs = []
    for result in results.values():
        where = result["environment"]
        took = f"{sum(result['took_s'].values())} s, load {where['load']} at the start"
        runs.append(f"{where['python']} ({took})")
    packages = [f"{name} {where[name]}" for name in PACKAGES if where.get(name)]
    text = (
        f"These are of {' and '.join(runs)} on {where['processors']} processors "
        f"({where['machine']}), with {', '.join(packages)}."
    )
    return textwrap.fill(text, 104, break_on_hyphens=False, break_long_words=False)


def _in_short(result: Result) -> str:
    """Return the lines of the README at the root."""
    ours = [one for one in result["jobs"]["results"] if one["contender"] == jobs.OURS]
    (killed,) = (one for one in result["jobs"]["killed"] if one["contender"] == jobs.OURS)
    refused = sum(one["calls_429"] for one in ours)
    latencies = sorted({one["latency_ms"] for one in ours})
    text = (
        f"- **Speed**, over TLS, at {latencies[0]} to {latencies[-1]} ms, under a quota: list, "
        f"upsert and sync took {_range(map(_calls, ours))} of the ideal calls, {refused or 'no'} "
        f"429s, {_range(map(_seconds, ours))} of the ideal seconds; a journalled upsert killed "
        f"halfway, {_calls(killed):.2f} of the calls. A page / a PUT takes {_instructions(result)} "
        "of the instructions of aiohttp by hand: [benchmarks](benchmarks/README.md)."
    )
    return textwrap.fill(text, 112, subsequent_indent="  ", break_on_hyphens=False)


def _range(ratios: Iterable[float]) -> str:
    low, *_, high = sorted(f"{one:.2f}" for one in ratios)
    return low if low == high else f"{low} to {high}"


def texts(results: dict[str, Result]) -> dict[str, str]:
    """Return what stands between the markers; jobs are of the newest interpreter."""
    newest = list(results.values())[-1]
    return {
        "jobs": _jobs(newest),
        "cpu": _cpu(results),
        "surroundings": _surroundings(results),
        "in short": _in_short(newest),
    }


def filled(text: str, replacements: dict[str, str]) -> str:
    """Return a text with what is between its markers replaced.

    Raises `KeyError` for a marker that is none of these.
    """
    return re.sub(
        r"(<!-- ([a-z ]+) -->\n).*?([ \n]<!-- end -->)",
        lambda found: found[1] + replacements[found[2]] + found[3],
        text,
        flags=re.DOTALL,
    )


def read(folder: Path) -> dict[str, Result]:
    """Return the results that are kept, by the interpreter's version."""
    return {
        file.stem.removeprefix("results-"): json.loads(file.read_text(encoding="utf-8"))
        for file in sorted(folder.glob("results-*.json"))
    }


def put(folder: Path, version: str, result: Result) -> None:
    """Write a result, merged with what earlier runs of this version measured."""
    file = folder / f"results-{version}.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    whole = {**before, **result}
    whole["took_s"] = {**before.get("took_s", {}), **result.get("took_s", {})}
    document = json.dumps({part: whole[part] for part in _PARTS if part in whole}, indent=1)
    # A line for each record.
    document = re.sub(r"\{[^{}]*\}", lambda found: " ".join(found[0].split()), document)
    file.write_text(document + "\n", encoding="utf-8")
    results = read(folder)
    (folder / "speed.svg").write_text(plot.drawn(list(results.values())[-1]), encoding="utf-8")
    for readme in (folder / "README.md", folder.parent / "README.md"):
        text = readme.read_text(encoding="utf-8")
        readme.write_text(filled(text, texts(results)), encoding="utf-8")
