"""Simulate from the command line: `python -m sim --help`."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from laps.cli.common import MAX_WIDTH
from sim.case import Case
from sim.cells import Cell, Row, simulate_all
from sim.experiments.catalogue import EXPERIMENTS, Experiment
from sim.experiments.page import Page
from sim.experiments.store import Store
from sim.physics import Physics
from sim.predictions import Lognormal
from sim.tables import terminal
from sim.validation import CHECKS

app = typer.Typer(help="The simulator of sglang-laps.", no_args_is_help=True, add_completion=False)
Jobs = Annotated[int, typer.Option(help="processes")]
CPUS = os.cpu_count() or 1
ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"
DOCS = ROOT / "docs"
SHORT = ROOT / "build" / "sim"
"""Where short runs go: they are to see that everything works."""


@app.command()
def compare(
    policies: Annotated[
        str, typer.Option(help="NAME or NAME:PARAMETER=VALUE:..., by comma")
    ] = "fcfs,laps-sd,oracle",
    load: Annotated[float, typer.Option(help="1 is the capacity")] = 0.9,
    requests: Annotated[int, typer.Option(help="per seed")] = 50_000,
    seeds: Annotated[int, typer.Option(help="runs, each with its own requests")] = 5,
    running: Annotated[int, typer.Option(help="most requests in a round")] = 16,
    sigma: Annotated[float, typer.Option(help="error of predicted lengths, lognormal")] = 0.8,
    jobs: Jobs = CPUS,
) -> None:
    """Compare policies on the reference case, or near it: same requests for all."""
    case = Case(
        load=load,
        requests=requests,
        physics=Physics(max_running=running),
        predictions=Lognormal(sigma),
    )
    cells = [Cell(case, policy, seed) for seed in range(seeds) for policy in policies.split(",")]
    console = Console()
    rows: list[Row] = []
    simulate_all(cells, jobs, console, rows.append)
    order = policies.split(",")
    rows.sort(key=lambda row: order.index(row["policy"]))
    title = f"load {load}, {running} running, {seeds} x {requests} requests"
    Console(width=MAX_WIDTH).print(terminal(title, rows))


@app.command("run")
def run_experiments(
    names: Annotated[list[str], typer.Argument(help=f"all, or some of: {', '.join(EXPERIMENTS)}")],
    short: Annotated[bool, typer.Option(help="few requests, into build/sim")] = False,
    policies: Annotated[str, typer.Option(help="by comma; default: the experiment's")] = "",
    jobs: Jobs = CPUS,
) -> None:
    """Run experiments, but for what has been run before."""
    unknown = sorted(set(names) - {"all", *EXPERIMENTS})
    if unknown:
        raise typer.BadParameter(f"no experiment {', '.join(unknown)}")
    store, console = store_for(short), Console()
    for experiment in experiments(short):
        if experiment.name not in names and "all" not in names:
            continue
        if policies:
            experiment = replace(experiment, policies=policies.split(","))
        cells = store.missing(experiment)
        if cells:
            console.print(f"{experiment.name}: {experiment.title}")
            keep = partial(store.append, experiment)
            simulate_all(cells, jobs, console, keep)
        else:
            console.print(f"{experiment.name}: nothing to simulate that is not there")


@app.command()
def page(short: Annotated[bool, typer.Option(help="of the short runs")] = False) -> None:
    """Write the results page, its figures and the summary from what has been run."""
    path = (SHORT if short else DOCS) / "results.md"
    Page(store_for(short), path).write(experiments(short))
    print(path)


def experiments(short: bool) -> list[Experiment]:
    """Return all experiments."""
    return [e.short() if short else e for e in EXPERIMENTS.values()]


def store_for(short: bool) -> Store:
    """Return where rows go."""
    return Store(SHORT if short else RESULTS)


@app.command()
def validate() -> None:
    """Hold the simulator against queueing theory."""
    table = Table("check", "simulated", "low", "high", "")
    holds = True
    for check in CHECKS.values():
        for finding in check():
            holds &= finding.holds
            bounds = (f"{figure:.4f}" for figure in (finding.simulated, finding.low, finding.high))
            table.add_row(finding.what, *bounds, "" if finding.holds else "FAILS")
    Console().print(table)
    raise typer.Exit(0 if holds else 1)


if __name__ == "__main__":
    app()
