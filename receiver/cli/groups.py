"""Lists of commands, in the help of a group."""

from __future__ import annotations

import click


class CommandGroup(click.Group):
    """A group that lists its commands with whole sentences: click's own cuts them at the terminal's width."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a line of each command; a long one is wrapped."""
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [
            (name, found.get_short_help_str(limit=_WHOLE)) for name, found in commands if found and not found.hidden
        ]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


_WHOLE = 1000  # characters: no summary is that long
