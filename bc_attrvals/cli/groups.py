"""A group of commands that suggests the command that was meant."""

from __future__ import annotations

import difflib

import click


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
