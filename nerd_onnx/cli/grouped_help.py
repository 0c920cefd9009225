"""A command whose ``--help`` lists the options in groups, each under a heading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click


class GroupedCommand(click.Command):
    """
    A click command with headings between its options.

    A heading belongs to the first option of its group, and a group ends where the next one begins. So a new option gets
    the heading of the place where it is declared, and no list of names has to follow it.

    :param headings: the heading that begins at an option, by the option's long name
    """

    def __init__(self, *args: Any, headings: Mapping[str, str], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.headings = headings

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, group by group."""
        heading = "Options"
        groups: dict[str, list[tuple[str, str]]] = {}

        # Arguments are left out: the text of the command explains them.
        for option in self.get_params(ctx):
            if not isinstance(option, click.Option):
                continue
            heading = self.headings.get(max(option.opts, key=len), heading)
            if line := option.get_help_record(ctx):
                groups.setdefault(heading, []).append(line)

        for title, lines in groups.items():
            with formatter.section(title):
                formatter.write_dl(lines)
