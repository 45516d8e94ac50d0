"""`laps policy`: the policy in force, or another one."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from laps.cli.common import (
    EndpointOption,
    SetOption,
    connected,
    parse_parameters,
    print_table,
)
from laps.client import DEFAULT_ENDPOINT, PolicySpec
from laps.policies.registry import POLICIES

_CHOICES = ", ".join(sorted(POLICIES))


def policy(
    name: Annotated[str | None, typer.Argument(help=f"Policy to set: {_CHOICES}.")] = None,
    parameters: SetOption = None,
    endpoint: EndpointOption = DEFAULT_ENDPOINT,
) -> None:
    """Show the policy of each worker, or order all workers by another one."""
    if name is None and parameters:
        raise typer.BadParameter("say which policy the parameters are for", param_hint="NAME")
    nobody = "no worker is attached yet"
    with connected(endpoint) as client:
        if name is not None:
            client.set_policy(PolicySpec(name, parse_parameters(parameters)))
            nobody = f"set to {name}; {nobody}"
        workers = client.list_workers()
    print_table(
        ("WORKER", "POLICY", "PARAMETERS"),
        [
            (worker.worker_id, worker.policy.name, json.dumps(dict(worker.policy.parameters)))
            for worker in workers
        ],
        nobody,
    )
