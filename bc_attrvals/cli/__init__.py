"""The command line: commands, progress, questions and summaries, over the library.

In: `sys.argv`, the environment, files. Out: files, one summary, an exit status. It may import
everything. Only `main` is here, so that one line can name a missing extra.
"""

from __future__ import annotations

import io
import sys
from typing import NoReturn

from bc_attrvals.cli.standard_streams import prepare_streams

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command of `sys.argv` and exit with its status."""
    prepare_streams()
    try:
        import click
        import rich  # noqa: F401

        from bc_attrvals.cli.app import cli
    except KeyboardInterrupt:
        # The handlers of signals are not set yet.
        _interrupted()
    except ModuleNotFoundError as error:
        if error.name not in {"click", "rich"}:
            raise
        sys.stderr.write(
            f"The command line needs {error.name}; install it: pip install 'bc_attrvals[cli]'\n"
        )
        sys.exit(2)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Help and summaries print where the encoding lacks a character. Values are not affected:
        # they are written as bytes.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        # Its own way ends with 1 where Ctrl-C comes while options are parsed.
        status = cli.main(prog_name="bc-attrvals", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except click.Abort:
        _interrupted()
    sys.exit(status or 0)


def _interrupted() -> NoReturn:
    sys.stderr.write("Interrupted.\n")
    sys.exit(130)
