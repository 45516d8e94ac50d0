"""The page's plots, as SVG."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt

from gpu.names import in_tables
from gpu.summary import Contest
from sim.experiments.figures import save

PANELS = (("mean_s", "mean latency (s)"), ("p99_s", "P99 latency (s)"))


def by_policy(contest: Contest, path: Path) -> None:
    """Plot mean and P99 by load, a point for each policy: the median, and the range of rounds."""
    loads = contest.loads
    policies = sorted({row["policy"] for row in contest.rows}, key=in_tables)
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.5), constrained_layout=True)
    for panel, (name, heading) in zip(panels, PANELS, strict=True):
        for number, policy in enumerate(policies):
            # Beside each other, so that ranges can be told apart.
            shift = 0.7 * ((number + 0.5) / len(policies) - 0.5)
            found = [(place, contest.of(load, policy, name)) for place, load in enumerate(loads)]
            points = [(place + shift, value) for place, value in found if value is not None]
            panel.errorbar(
                [place for place, _ in points],
                [value.median for _, value in points],
                yerr=[
                    [value.median - value.least for _, value in points],
                    [value.most - value.median for _, value in points],
                ],
                fmt="o",
                markersize=4,
                capsize=2,
                label=policy,
            )
        panel.set_xticks(range(len(loads)), loads)
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter("{x:g}")
        panel.set_xlabel("load")
        panel.set_ylabel(heading)
        panel.grid(alpha=0.3, which="both", axis="y")
    panels[1].legend(fontsize="small", bbox_to_anchor=(1.02, 1), loc="upper left")
    save(figure, path)
