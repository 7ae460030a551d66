"""The built wheel, installed in a fresh environment: all it needs at run time is in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

_CHECK = """
import importlib.metadata, importlib.resources, pathlib
import bc_attrvals
from bc_attrvals import Store
files = importlib.resources.files("bc_attrvals")
assert "site-packages" in str(files), files
for name in ("py.typed", "sandbox/page.html", "shared_quota/grants.lua"):
    assert (files / name).is_file(), name
assert bc_attrvals.__version__ == importlib.metadata.version("bc_attrvals")
print(bc_attrvals.__version__)
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_works_alone(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run(*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    # The pip at hand installs there: an own one takes longer to install than all the rest.
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "fresh", cwd=tmp_path)
    python = next((tmp_path / "fresh").glob("*/python"))
    run(*pip, "--python", python, "install", "--no-compile", wheel, cwd=tmp_path)
    assert run(python, "-c", _CHECK, cwd=tmp_path).strip()
