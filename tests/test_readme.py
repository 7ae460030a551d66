"""What the README shows holds: its example runs, its commands and errors exist."""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path

import pytest

import bc_attrvals
from bc_attrvals.cli.app import cli
from bc_attrvals.sandbox import Sandbox

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def section(heading: str) -> str:
    return README.split(f"\n## {heading}\n")[1].split("\n## ")[0]


async def test_the_first_example_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Sandbox(quota=None) as sandbox:
        monkeypatch.setenv("BIGCOMMERCE_STORE_HASH", sandbox.store_hash)
        monkeypatch.setenv("BIGCOMMERCE_ACCESS_TOKEN", sandbox.access_token)
        monkeypatch.setenv("BIGCOMMERCE_API_URL", sandbox.url)
        # The example starts a loop of its own, and the sandbox serves in this one.
        await asyncio.to_thread(exec, compile(PYTHON_BLOCKS[0], "README.md", "exec"), {})
        assert await sandbox.values() == {(1, 1): "0.93", (2, 1): "0.12"}
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "2 stored in 1 calls"
    assert [line.split()[:2] for line in out[1:]] == [["1", "0.93"], ["2", "0.12"]]


@pytest.mark.parametrize("block", PYTHON_BLOCKS)
def test_every_example_is_python_and_names_what_there_is(block: str) -> None:
    wrapped = "async def example():\n" + "".join(f"    {line}\n" for line in block.splitlines())
    names = {
        node.attr
        for node in ast.walk(ast.parse(wrapped))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "values"
    }
    assert all(hasattr(bc_attrvals.AttributeValues, name) for name in names)


def test_the_commands_are_those_there_are() -> None:
    listed = re.findall(r"^\| `([a-z]+)` \|", section("Command line"), re.MULTILINE)
    assert sorted(listed) == sorted(cli.commands)


def test_the_errors_are_those_there_are() -> None:
    first_cells = re.findall(r"^\| (`.*?`) \|", section("Errors"), re.MULTILINE)
    for name in re.findall(r"`(\w+)`", " ".join(first_cells)):
        assert issubclass(getattr(bc_attrvals, name), bc_attrvals.BCAttrValsError)


@pytest.mark.parametrize("heading", ["Quick start", "Tests"])
def test_both_commands_make_their_own_virtual_environment(heading: str) -> None:
    block = re.search(r"```sh\n(.*?)```", section(heading), re.DOTALL)
    assert block is not None
    assert block[1].startswith("python3 -m venv ")
    assert block[1].count("\n") == 1
