"""The commands that use a mirror."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from bc_attrvals.cli.mirror_option import chunked


def test_counts_and_exports_of_a_mirror_make_no_call(stored, tmp_path) -> None:
    path, out = tmp_path / "store.db", tmp_path / "values.csv"
    stored.run("mirror", path)
    calls = len(stored.sandbox.requests)
    assert stored.run("count", "--mirror", path).stdout == "600\n"
    assert stored.run("count", "--mirror", path, "--customer-id", 3).stdout == "2\n"
    result = stored.run("export", "--mirror", path, "--attribute-id", 1, "--output", out)
    assert result.exit_code == 0, result.stderr
    assert len(out.read_text().splitlines()) == 301
    assert len(stored.sandbox.requests) == calls
    for command in ("count", "export"):
        result = stored.run(command, "--mirror", tmp_path / "none.db")
        assert result.exit_code == 2
        assert "there is no mirror" in result.stderr


def test_a_sync_compares_with_a_mirror(stored, tmp_path, summary) -> None:
    path, journal = tmp_path / "store.db", tmp_path / "sync.db"
    stored.run("mirror", path)
    table = "customer_id,attribute_id,value\n" + "".join(
        f"{n // 2 + 1},{n % 2 + 1},{'new' if n == 7 else f'v{n}'}\n" for n in range(600)
    )
    args = ["sync", "-", "--whole-store", "--prune", "--yes", "--mirror", path]
    result = stored.run("--json", *args, "--journal", journal, input=table)
    seen = summary(result)
    assert result.exit_code == 0
    assert seen["updated"] == 1
    assert seen["plan"]["reading"] == "mirror"
    assert seen["calls"] <= 14
    result = stored.run(*args, "--dry-run", input=table)
    assert "refresh the mirror" in result.stdout + result.stderr
    assert stored.run("count", "--mirror", path).stdout == "600\n"


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 30])
async def test_chunks_hold_all_rows_in_order(count) -> None:
    async def rows():
        for n in range(count):
            yield n

    async with aclosing(chunked(rows(), 10)) as chunks:
        found = [chunk async for chunk in chunks]
    assert [n for chunk in found for n in chunk] == list(range(count))
    assert all(len(chunk) == 10 for chunk in found[:-1])
    assert all(found)
