"""What a user's type checker sees: the pinned types hold, and mistakes are found."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MISTAKES = {9, 10, 11, 12, 14}


SCRIPTS = ("script.py", "wrong.py")

Mistakes = dict[str, set[int]]


def mypy(cache: Path) -> Mistakes:
    """Return the lines in which mypy finds an error, by script."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file="),
            *("--follow-imports=silent", "--cache-dir", str(cache)),
            *(f"tests/typing/{name}" for name in SCRIPTS),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found = re.findall(r"(\w+\.py):(\d+): error", done.stdout)
    return {name: {int(line) for file, line in found if file == name} for name in SCRIPTS}


def pyright(folder: Path) -> Mistakes:
    """Return the lines in which pyright finds an error (basedpyright is pyright in a wheel)."""
    settings = {
        "typeCheckingMode": "strict",
        "include": [str(ROOT / "tests" / "typing" / name) for name in SCRIPTS],
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
    assert report["summary"]["filesAnalyzed"] == len(SCRIPTS)
    found = [one for one in report["generalDiagnostics"] if one["severity"] == "error"]
    return {
        name: {1 + one["range"]["start"]["line"] for one in found if Path(one["file"]).name == name}
        for name in SCRIPTS
    }


@pytest.mark.parametrize("checker", [mypy, pyright], ids=["mypy", "pyright"])
def test_a_users_script_is_clean_sees_the_pinned_types_and_mistakes_are_found(
    checker: Callable[[Path], Mistakes], tmp_path: Path
) -> None:
    assert checker(tmp_path) == {"script.py": set(), "wrong.py": MISTAKES}
