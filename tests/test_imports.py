"""The architecture: imports point one way, the core does no I/O, the sandbox stands apart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_imports_keep_the_contracts() -> None:
    # In a process of its own: import-linter sets logging up anew and switches our loggers off.
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
