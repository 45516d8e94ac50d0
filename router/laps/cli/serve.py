"""`laps serve`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from laps.cli.common import REFUSED, USAGE, SetOption, fail, parse_parameters


def serve(
    config: Annotated[
        Path | None, typer.Option(envvar="LAPS_CONFIG", help="YAML file with the settings.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Address; default 127.0.0.1:50070.")
    ] = None,
    allow_remote: Annotated[
        bool | None,
        typer.Option(
            "--allow-remote/--no-allow-remote",
            help="Permit an address that other machines reach. There is no authentication yet.",
        ),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="Policy of all workers; default laps-sd.")
    ] = None,
    parameters: SetOption = None,
    plan_ttl_s: Annotated[
        float | None,
        typer.Option(help="Seconds without a plan after which a worker decides; default 0.5."),
    ] = None,
    grace_s: Annotated[
        float | None, typer.Option(help="Seconds a stop waits for answers; default 10.")
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="console (default) or json.")] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info (default), warning or error.")
    ] = None,
) -> None:
    """Run the scheduling service.

    Each setting is taken from its flag, else from LAPS_SERVE_<NAME>, else from the file, else it
    is the default.
    """
    # The server's libraries are for this command alone: the others start faster without.
    from laps.service.app import ServiceError
    from laps.service.app import serve as run
    from laps.service.config import ConfigError, load_config
    from laps.service.logs import setup_logs

    flags = {
        "listen": listen,
        "allow_remote": allow_remote,
        "policy": policy,
        "parameters": parse_parameters(parameters) or None,
        "plan_ttl_s": plan_ttl_s,
        "grace_s": grace_s,
        "log_format": log_format,
        "log_level": log_level,
    }
    try:
        settings = load_config(
            config, {name: value for name, value in flags.items() if value is not None}
        )
    except ConfigError as error:
        raise fail(str(error), USAGE) from None
    setup_logs(settings.log_format, settings.log_level)
    try:
        asyncio.run(run(settings))
    except ServiceError as error:
        raise fail(str(error), REFUSED) from None
