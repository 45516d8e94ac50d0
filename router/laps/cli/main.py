"""The `laps` command: its parts put together.

Exit codes: 0 done, 1 refused or not found, 2 wrong usage, 3 the service cannot be reached.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from laps.cli import generate, listings, policy, serve

app = typer.Typer(
    name="laps",
    help="Run the scheduling service for SGLang workers, look into it, and generate through it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serve.serve)
app.command()(listings.workers)
app.command()(listings.queues)
app.command()(listings.requests)
app.command()(listings.explain)
app.command()(policy.policy)
app.command()(generate.generate)
app.command()(generate.cancel)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"laps {version('sglang-laps')}")
        raise typer.Exit


@app.callback()
def _main(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Hold the options that come before a command."""
