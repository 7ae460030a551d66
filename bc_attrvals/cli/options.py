"""How commands are made: the values of options, options that belong together, groups, examples."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def parsed(parse: Callable[[Any], T]) -> Callable[..., T | None]:
    """Return the callback of an option whose value `parse` makes, or refuses by ValueError.

    OSError refuses it, too. An option that is not given is None.
    """

    def callback(_ctx: click.Context, _param: click.Parameter, given: object) -> T | None:
        try:
            return None if given is None else parse(given)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
        except OSError as error:
            raise click.BadParameter(f"{error.filename}: {error.strerror or error}") from None

    return callback


def flag(name: str, text: str) -> Callable[[F], F]:
    """Return an option without a value, with its help."""
    return click.option(name, is_flag=True, help=text)


def file_option(
    *names: str,
    text: str,
    takes_dash: bool = False,
    **more: Any,  # noqa: ANN401 - click's own
) -> Callable[[F], F]:
    """Return an option that names a file; with `takes_dash`, `-` is a standard stream."""
    kind = click.Path(allow_dash=True) if takes_dash else click.Path(dir_okay=False)
    return click.option(*names, **{"type": kind, "metavar": "FILE", "help": text, **more})


def repeatable(
    name: str, argument: str, metavar: str, parse: Callable[[Any], T], text: str
) -> Callable[[F], F]:
    """Return an option that may be given several times; `parse` takes all of its texts."""
    return click.option(
        name,
        argument,
        multiple=True,
        callback=parsed(parse),
        metavar=metavar,
        help=f"{text} Repeatable.",
    )


def with_options(function: F, options: Sequence[Callable[[Any], Any]]) -> F:
    """Add options, to be shown in this order."""
    for option in reversed(options):
        function = option(function)
    return function


def bundled(
    function: F, make: Callable[..., Any], name: str, options: Sequence[Callable[[Any], Any]]
) -> F:
    """Add options; the command gets them as one argument, made of those that `make` takes."""
    fields = inspect.signature(make).parameters

    @wraps(function)
    def command(*args: object, **given: Any) -> object:  # noqa: ANN401 - click's own
        chosen = make(**{field: given.pop(field) for field in fields if field in given})
        return function(*args, **{name: chosen}, **given)

    wrapped: Any = with_options(command, options)
    found: F = wrapped
    return found


def examples(*lines: str) -> str:
    """Return the part of a help page that shows how a command is used."""
    # The mark keeps click from filling the lines.
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def command(*lines: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Return the decorator of a command whose help ends with these examples."""
    return click.command(epilog=examples(*lines))


class SuggestingGroup(click.Group):
    """A group that names the nearest command for a mistyped one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which was meant."""
        name = args[0]
        if (
            self.get_command(ctx, name) is None
            and not name.startswith("-")
            # Completion asks about lines that are not complete.
            and not ctx.resilient_parsing
        ):
            message = f"No such command {name!r}."
            guesses = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            if guesses:
                message += f" Did you mean {guesses[0]!r}?"
            raise click.UsageError(message, ctx)
        return super().resolve_command(ctx, args)
