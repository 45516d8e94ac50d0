"""What the commands share: where the service is, how errors end, what output looks like."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from laps.client import (
    LapsError,
    Phase,
    ServiceUnreachableError,
    SyncLapsClient,
)

REFUSED, USAGE, UNREACHABLE = 1, 2, 3
"""Exit codes."""

MAX_WIDTH = 10_000
"""Most columns of a table: a terminal breaks long lines better than a table its cells."""


class Output(StrEnum):
    """How a listing is printed."""

    TABLE = "table"
    JSON = "json"


EndpointOption = Annotated[
    str,
    typer.Option("--endpoint", envvar="LAPS_ENDPOINT", help="host:port of the service."),
]
OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="For people, or for programs.")
]
WorkerOption = Annotated[str, typer.Option("--worker", help="Only this worker.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Parameter of the policy; may be repeated."),
]


def fail(message: str, code: int) -> typer.Exit:
    """Print `message` as an error and return what to raise."""
    typer.echo(f"laps: {message}", err=True)
    return typer.Exit(code)


@contextmanager
def connected(endpoint: str) -> Iterator[SyncLapsClient]:
    """Give a client; its errors become a sentence and an exit code."""
    try:
        with SyncLapsClient(endpoint) as client:
            yield client
    except ServiceUnreachableError as error:
        raise fail(str(error), UNREACHABLE) from None
    except LapsError as error:
        raise fail(str(error), REFUSED) from None


def parse_parameters(settings: Sequence[str] | None) -> dict[str, float | int | str | bool]:
    """Return the parameters that `NAME=VALUE` texts set; a value is JSON, or else a string."""
    parameters: dict[str, float | int | str | bool] = {}
    for setting in settings or ():
        name, equals, text = setting.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{setting!r} is not NAME=VALUE", param_hint="--set")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        parameters[name] = value if isinstance(value, float | int) else text.strip('"')
    return parameters


def print_json(value: Any) -> None:
    """Print dataclasses as JSON, phases by their lower-case names."""
    plain = [asdict(item) for item in value] if isinstance(value, list) else asdict(value)
    typer.echo(json.dumps(_named(plain), indent=2))


def _named(value: Any) -> Any:
    match value:
        case Phase():
            return value.name.lower()
        case dict():
            return {name: _named(item) for name, item in value.items()}
        case list() | tuple():
            return [_named(item) for item in value]
        case _:
            return value


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    """Print a table as wide as it is, numbers right, None as a dash; `empty` without rows."""
    if not rows:
        typer.echo(empty)
        return
    table = Table(box=None, header_style="bold", pad_edge=False, show_header=any(columns))
    for name, *values in zip(columns, *rows, strict=True):
        numeric = any(isinstance(value, float | int) for value in values)
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(_cell, row))
    Console(width=MAX_WIDTH).print(table)


def _cell(value: object) -> Text:
    if value is None:
        return Text("-")
    if isinstance(value, float):
        return Text(f"{value:.2f}")
    # What clients name things must not steer the terminal.
    return Text("".join(char if char.isprintable() else "\ufffd" for char in str(value)))
