"""The architecture: imports point one way, the core does no I/O, the sandbox stands apart."""

from __future__ import annotations

from pathlib import Path

from importlinter.cli import lint_imports


def test_imports_keep_the_contracts() -> None:
    config = Path(__file__).parent.parent / "pyproject.toml"
    assert lint_imports(config_filename=str(config), no_cache=True, is_debug_mode=False) == 0
