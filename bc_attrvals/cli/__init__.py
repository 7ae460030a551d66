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
    try:
        prepare_streams()
        status = _run()
    except KeyboardInterrupt:
        # The handlers of signals are not set all the time.
        sys.stderr.write("Interrupted.\n")
        status = 130
    sys.exit(status)


def _run() -> int:
    try:
        import click
        import rich  # noqa: F401

        from bc_attrvals.cli.app import cli
    except ModuleNotFoundError as error:
        if error.name not in {"click", "rich"}:
            raise
        sys.stderr.write(
            f"The command line needs {error.name}; install it: pip install 'bc_attrvals[cli]'\n"
        )
        return 2
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Help and summaries print where the encoding lacks a character. Values are not affected:
        # they are written as bytes.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        # In its standalone mode click exits with 1 where Ctrl-C comes while options are parsed.
        return cli.main(prog_name="bc-attrvals", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
