"""The benchmarks run; what they measure is not looked at here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import plot, table
from benchmarks.page_server import PageServer, hash_of

_ROOT = Path(__file__).parent.parent


def test_reading_and_writing_run_at_tiny_sizes_and_can_be_drawn(tmp_path: Path) -> None:
    code = (
        "import asyncio; from benchmarks import stream, upsert;"
        "from benchmarks.page_server import PageServer, hash_of;"
        "from benchmarks.rivals import Target;"
        "server = PageServer().__enter__();"
        "target = Target(server.url, hash_of(700), 'token');"
        "assert asyncio.run(stream._ours(target)) == 700;"
        "assert asyncio.run(stream._ours_by_pages(target)) == 700;"
        "assert asyncio.run(upsert._ours(target, 95)) == 95;"
        "assert asyncio.run(upsert._ours_with_outcomes(target, 95)) == 95;"
        "server.__exit__(None, None, None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=_ROOT)
    figures = [{"name": "bc_attrvals", "ratio": 0.5}, {"name": "a & b", "ratio": 40.0}]
    result = {
        "environment": {"python": "CPython 3.11.0"},
        "stream": {"figures": figures},
        "upsert": {"figures": figures},
    }
    (tmp_path / "results.json").write_text(json.dumps(result))
    plot.draw([tmp_path / "results.json"], tmp_path / "speed.svg")
    drawn = (tmp_path / "speed.svg").read_text()
    assert "Python 3.11.0" in drawn
    assert "a &amp; b" in drawn
    assert drawn.count("<rect") == 5


def test_the_readme_holds_the_figures_that_are_kept(tmp_path: Path) -> None:
    kept = sorted(Path(plot.__file__).parent.glob("results-*.json"))
    assert len(kept) == 2
    readme = Path(plot.__file__).parent / "README.md"
    copy = tmp_path / "README.md"
    copy.write_text(readme.read_text(encoding="utf-8"), encoding="utf-8")
    table.put_into(copy, kept)
    assert copy.read_text(encoding="utf-8") == readme.read_text(encoding="utf-8")
    assert "| - |" not in table.make(kept)


def test_the_page_servers_process_ends_with_its_owner() -> None:
    with PageServer() as server:
        process = server._process
        assert process is not None
        assert process.poll() is None
        assert hash_of(250, 3) == "r250l3"
    assert process.returncode == 0
