"""The benchmarks run; what they measure is not looked at here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import jobs, kept, plot
from benchmarks.harness import child_environment, trusting
from benchmarks.page_server import PageServer, hash_of

_ROOT = Path(__file__).parent.parent


def test_reading_and_writing_run_at_tiny_sizes_over_tls_and_plain() -> None:
    code = (
        "import asyncio, sys; from benchmarks import cpu;"
        "from benchmarks.page_server import hash_of;"
        "from benchmarks.rivals import Target;"
        "target = Target(sys.argv[1], hash_of(700), 'token');"
        "assert asyncio.run(cpu.stream(target)) == 700;"
        "assert asyncio.run(cpu.pages(target)) == 700;"
        "assert asyncio.run(cpu.upsert(target, 95)) == 95;"
        "assert asyncio.run(cpu.upsert_stream(target, 95)) == 95"
    )
    with PageServer() as server:
        for url in (server.url, server.tls_url):
            environment = child_environment(**trusting(server.ca_file))
            command = [sys.executable, "-c", code, url]
            subprocess.run(command, check=True, cwd=_ROOT, env=environment)


def test_the_ideal_of_a_job_is_bound_by_windows_slots_and_latency() -> None:
    by_name = {job.name: job for job in jobs.JOBS}
    # 16 calls, of which a window of 0.6 s has 12; then one more round of 0.1 s.
    assert by_name["list"].phases == [(1, 1), (15, 10)]
    assert by_name["list"].ideal_s(0.1) == pytest.approx(0.7)
    # 12 in the first window, and 8 in three rounds of three.
    assert by_name["upsert"].ideal_s(0.1) == pytest.approx(0.6 + 0.3)
    assert by_name["upsert, 4 refused"].calls == 24
    # Where the latency is the limit the windows are not.
    assert by_name["upsert"].ideal_s(1.0) == pytest.approx(7.0)
    refused = [item for item in by_name["upsert, 4 refused"].items() if item.attribute_id == 2]
    assert len({(item.customer_id - 1) // 10 for item in refused}) == 4


def test_the_readmes_and_the_plot_hold_the_figures_that_are_kept() -> None:
    folder = Path(kept.__file__).parent
    results = kept.read(folder)
    assert list(results) == ["3.11", "3.13"]
    texts = kept.texts(results)
    for readme in (folder / "README.md", _ROOT / "README.md"):
        text = readme.read_text(encoding="utf-8")
        assert kept.filled(text, texts) == text
        assert sum(one in text for one in texts.values()) == text.count("<!-- end -->")
    assert "| - |" not in texts["cpu"]
    drawn = (folder / "speed.svg").read_text(encoding="utf-8")
    assert plot.drawn(results["3.13"]) == drawn


def test_a_result_is_kept_beside_what_was_measured_before(tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for name in ("README.md", "benchmarks/README.md", "benchmarks/results-3.13.json"):
        (tmp_path / name).write_text((_ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    before = kept.read(folder)["3.13"]
    kept.put(folder, "3.13", {"instructions": {"page": {"ratio": 0.5}, "put": {"ratio": 0.25}}})
    assert kept.read(folder)["3.13"] == before | {
        "instructions": {"page": {"ratio": 0.5}, "put": {"ratio": 0.25}}
    }
    assert "0.50 / 0.25" in (folder / "README.md").read_text(encoding="utf-8")
    assert "0.50 / 0.25" in (tmp_path / "README.md").read_text(encoding="utf-8")
    with pytest.raises(KeyError):
        kept.filled("<!-- other -->\ntext\n<!-- end -->", {})


def test_the_page_servers_process_ends_with_its_owner() -> None:
    with PageServer() as server:
        process = server.process
        assert process.poll() is None
        assert hash_of(250) == "r250"
    assert process.returncode == 0
