"""Shell completion: the script that is printed, and what it completes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from bc_attrvals.cli.app import cli
from tests.cli.conftest import ROOT


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_one_of_the_shell(tmp_path, shell) -> None:
    result = CliRunner().invoke(cli, ["--completion", shell], prog_name="bc-attrvals")
    assert result.exit_code == 0
    assert "_BC_ATTRVALS_COMPLETE" in result.stdout
    assert "bc-attrvals" in result.stdout
    if shutil.which(shell):
        script = tmp_path / "script"
        script.write_text(result.stdout)
        assert subprocess.run([shell, "-n", script], check=False, timeout=20).returncode == 0


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("bc-attrvals exp", "plain,export"),
        ("bc-attrvals upsert --fail", "plain,--failures"),
        ("bc-attrvals exprot --out", None),
    ],
)
def test_completion_knows_commands_and_options(monkeypatch, words, completed) -> None:
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    runner = CliRunner(env={"_BC_ATTRVALS_COMPLETE": "bash_complete"})
    result = runner.invoke(cli, [], prog_name="bc-attrvals")
    assert result.exception is None or isinstance(result.exception, SystemExit)
    if completed is not None:
        assert completed in result.stdout.splitlines()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes_a_command(tmp_path) -> None:
    program = tmp_path / "bc-attrvals"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bc_attrvals "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(bc-attrvals --completion bash)"\n'
        "COMP_WORDS=(bc-attrvals ups) COMP_CWORD=1\n"
        "$(complete -p bc-attrvals | sed -E 's/.*-F ([^ ]+).*/\\1/') bc-attrvals ups bc-attrvals\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("upsert\n", "")
