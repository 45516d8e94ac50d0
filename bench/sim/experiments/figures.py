"""Plots, as SVG: each experiment along its axis, and mean against P99 of the reference case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sim.cells import Row
from sim.experiments.catalogue import Experiment
from sim.simulate import STOCK
from sim.tables import ORACLE, against, policies_of

plt.rcParams["svg.hashsalt"] = "laps"  # the same data give the same file
plt.rcParams["svg.fonttype"] = "none"
PANELS = (("mean_s", ORACLE, "mean / oracle's mean"), ("p99_s", STOCK, "P99 / FCFS's P99"))


def along_axis(experiment: Experiment, rows: Sequence[Row], path: Path) -> None:
    """Plot mean and P99 by policy, with confidence intervals."""
    labels = list(experiment.cases)
    figure, panels = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    for panel, (name, yardstick, heading) in zip(panels, PANELS, strict=True):
        for policy in policies_of(rows):
            draw(panel, experiment, rows, policy, name, yardstick)
        panel.set_xticks(range(len(labels)), labels, rotation=25 if len(labels[-1]) > 5 else 0)
        panel.set_xlabel(experiment.axis)
        panel.set_ylabel(heading)
        panel.grid(alpha=0.3)
    panels[1].legend(fontsize="small", bbox_to_anchor=(1.02, 1), loc="upper left")
    save(figure, path)


def draw(
    panel: Axes,
    experiment: Experiment,
    rows: Sequence[Row],
    policy: str,
    name: str,
    yardstick: str,
) -> None:
    places, means, halves = [], [], []
    for place, label in enumerate(experiment.cases):
        here = [row for row in rows if row[experiment.axis] == label]
        value = against(here, policy, yardstick, name)
        if value is not None:
            places.append(place)
            means.append(value.mean)
            halves.append(value.half or 0.0)
    panel.errorbar(places, means, yerr=halves, marker="o", markersize=4, capsize=2, label=policy)


def frontier(rows: Sequence[Row], path: Path) -> None:
    """Plot mean against P99, a point for each policy, both as multiples."""
    figure, panel = plt.subplots(figsize=(6, 4.5), constrained_layout=True)
    for policy in policies_of(rows):
        mean = against(rows, policy, ORACLE, "mean_s")
        tail = against(rows, policy, STOCK, "p99_s")
        if mean is None or tail is None:
            continue
        panel.errorbar(
            mean.mean, tail.mean, xerr=mean.half or 0.0, yerr=tail.half or 0.0, marker="o"
        )
        label = policy.removeprefix("laps-sd+:")
        panel.annotate(label, (mean.mean, tail.mean), textcoords="offset points", xytext=(6, 4))
    panel.set_xlabel(PANELS[0][2])
    panel.set_ylabel(PANELS[1][2])
    panel.grid(alpha=0.3)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
