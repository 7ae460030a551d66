"""What a user's type checker sees: the pinned types hold, and mistakes are found."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MISTAKES = {9, 10, 11, 12, 14}


def mypy(script: str, cache: Path) -> set[int]:
    """Return the lines in which mypy finds an error."""
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "--follow-imports=silent",
        "--cache-dir",
        str(cache),
    ]
    done = subprocess.run(
        [*command, f"tests/typing/{script}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    found = re.findall(rf"{script}:(\d+): error", done.stdout)
    assert bool(found) == bool(done.returncode), done.stdout
    return {int(line) for line in found}


def pyright(script: str, folder: Path) -> set[int]:
    """Return the lines in which pyright finds an error (basedpyright is pyright in a wheel)."""
    settings = {
        "typeCheckingMode": "strict",
        "include": [str(ROOT / "tests" / "typing" / script)],
        "extraPaths": [str(ROOT)],
    }
    project = folder / "pyrightconfig.json"
    project.write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--project", str(project)]
    done = subprocess.run(
        [*command, "--pythonpath", sys.executable],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == 1
    return {
        1 + one["range"]["start"]["line"]
        for one in report["generalDiagnostics"]
        if one["severity"] == "error"
    }


@pytest.mark.parametrize("checker", [mypy, pyright], ids=["mypy", "pyright"])
class TestTyping:
    def test_a_users_script_is_clean_and_sees_the_pinned_types(
        self, checker: type, tmp_path: Path
    ) -> None:
        assert checker("script.py", tmp_path) == set()

    def test_mistakes_are_found(self, checker: type, tmp_path: Path) -> None:
        assert checker("wrong.py", tmp_path) == MISTAKES
