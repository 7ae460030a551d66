"""The command line: commands, file formats, progress. Nothing here a library user needs.

Only `main` stands here, so that a missing extra can be told in one line.
"""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command of `sys.argv` and exit with its status."""
    try:
        import click  # noqa: F401
        import rich  # noqa: F401

        from bc_attrvals.cli.app import cli
    except KeyboardInterrupt:
        # Before anything hears signals in order.
        sys.stderr.write("Interrupted.\n")
        sys.exit(130)
    except ModuleNotFoundError as error:
        if error.name not in {"click", "rich"}:
            raise
        sys.stderr.write(
            f"The command line needs {error.name}; install it: pip install 'bc_attrvals[cli]'\n"
        )
        sys.exit(2)
    cli(prog_name="bc-attrvals")
    sys.exit(0)
