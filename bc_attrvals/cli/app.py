"""The command group: global options, the commands, and which error ends with which exit status."""

from __future__ import annotations

import sqlite3
import sys
from functools import partial
from importlib import import_module
from typing import Any, Final

import click
from click.shell_completion import get_completion_class

from bc_attrvals.cli.console import (
    NOT_OF_THE_SERVICE,
    Failure,
    Interrupted,
    Refused,
    SomeFailed,
    print_result,
)
from bc_attrvals.cli.options import SuggestingGroup, examples
from bc_attrvals.cli.settings import Settings, connection_options, output_options
from bc_attrvals.cli.standard_streams import leave
from bc_attrvals.core.outcomes import PartialFailureError
from bc_attrvals.errors import BCAttrValsError
from bc_attrvals.tables.error_text import one_line

_PROGRAM: Final = "bc-attrvals"
#: A command's module has its name and is imported when it is run: an export needs no server. The
#: texts are the first sentences of the commands' help, so that listing them imports none.
_COMMANDS: Final = {
    "attributes": "List, make, rename and delete the definitions of attributes.",
    "count": "Print how many values match; all of them without filters.",
    "delete": "Delete the values that match, or those of the ids in a file.",
    "demo": "Store, read back, update and delete values in an emulated store, and compare each of "
    "them.",
    "export": "Write the values that match, exactly as they are stored.",
    "fleet": "Sync the stores that JOBS.toml describes, each with the values of its file.",
    "mirror": "Make FILE, a copy of the store's values, equal to the store.",
    "probe": "Settle facts of the service that are not documented, on a test store of yours.",
    "sandbox": "Serve an emulated store until Ctrl-C, and print how to reach it.",
    "sync": "Make the store hold the values of FILE (- is standard input), writing only what "
    "differs.",
    "upsert": "Store the values of FILE (- is standard input); create them or replace what is "
    "there.",
}
#: The variable that click's completion scripts set.
_COMPLETE_VARIABLE: Final = "_BC_ATTRVALS_COMPLETE"
_INTERRUPTED: Final = 130
#: The ends of the package's errors.
_ENDS: Final = (
    (NOT_OF_THE_SERVICE, Failure),
    (PartialFailureError, SomeFailed),
    (BCAttrValsError, Refused),
)
#: 128 and SIGPIPE: the status of a program whose output is closed.
_BROKEN_PIPE: Final = 141


class Commands(SuggestingGroup):
    """The commands; each error of the package becomes one line and its exit status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        del ctx
        return list(_COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands as click does, without importing them."""
        del ctx
        limit = formatter.width - 6 - max(map(len, _COMMANDS))
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, click.Command(name, help=text).get_short_help_str(limit))
                    for name, text in _COMMANDS.items()
                ]
            )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; None for another name."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(import_module(f"bc_attrvals.cli.commands.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 - click's own
    ) -> click.Context:
        """Parse the options before the command, which prints the help and the version."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except OSError as error:
            leave(sys.stdout)
            if isinstance(error, BrokenPipeError):
                raise click.exceptions.Exit(_BROKEN_PIPE) from None
            raise Failure(f"standard output: {error.strerror or error}") from None

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own
        """Run the command."""
        try:
            try:
                return super().invoke(ctx)
            except click.ClickException:
                raise
            except (BCAttrValsError, OSError, sqlite3.Error) as error:
                if isinstance(error, BrokenPipeError):
                    leave(sys.stdout)
                    ctx.exit(_BROKEN_PIPE)
                raise _failure(error) from None
            except (Interrupted, KeyboardInterrupt, click.Abort) as stopped:
                click.echo("Interrupted.", err=True)
                ctx.exit(getattr(stopped, "exit_status", _INTERRUPTED))
        except click.ClickException as error:
            settings = ctx.find_object(Settings)
            if settings is not None and settings.json and not settings.printed:
                settings.summarize(
                    "",
                    {
                        "command": ctx.invoked_subcommand,
                        "exit_status": error.exit_code,
                        "error": one_line(error.format_message()),
                    },
                )
            raise


def _failure(error: BCAttrValsError | OSError | sqlite3.Error) -> Failure:
    """Return one line for stderr, with the exit status."""
    message = one_line(str(error) or type(error).__name__)
    if isinstance(error, sqlite3.Error):
        return Failure(f"database: {message}")
    if isinstance(error, OSError):
        name = f"{one_line(error.filename)}: " if isinstance(error.filename, str) else ""
        return Failure(name + (error.strerror or message))
    return next(end for kinds, end in _ENDS if isinstance(error, kinds))(message)


def _completion(ctx: click.Context, _: click.Parameter, shell: str | None) -> None:
    if shell is None or ctx.resilient_parsing:
        return
    kind = get_completion_class(shell)
    assert kind is not None
    print_result(kind(ctx.command, {}, _PROGRAM, _COMPLETE_VARIABLE).source())
    ctx.exit()


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "bc-attrvals demo                (needs no store)",
        "export BIGCOMMERCE_STORE_HASH=abc123 BIGCOMMERCE_ACCESS_TOKEN=...",
        "bc-attrvals count",
        "bc-attrvals export --attribute-id 1,2 --output values.csv",
        "bc-attrvals upsert values.csv --failures failed.csv",
        "bc-attrvals sync values.csv --journal values.db",
    ),
)
@partial(connection_options, environment=True)
@output_options
@click.version_option(
    package_name="bc_attrvals", prog_name=_PROGRAM, message="%(prog)s %(version)s"
)
@click.option(
    "--completion",
    type=click.Choice(["bash", "zsh", "fish"]),
    is_eager=True,
    expose_value=False,
    callback=_completion,
    help='Print the shell\'s completion script, as for: eval "$(bc-attrvals --completion bash)"',
)
def cli() -> None:
    """Read and write BigCommerce customer attribute values in bulk.

    Exit status: 0 all done, 1 some items failed, 2 usage or bad input, 3 refused by the service or
    unreachable, 130 interrupted (Ctrl-C), 143 stopped by SIGTERM, 141 broken pipe.
    """
