"""The page's part on what the plugin costs."""

from __future__ import annotations

from statistics import fmean

from gpu.costs import Costs
from gpu.format import in_ms, missing, plain, ranged
from gpu.names import STOCK
from gpu.spread import Spread, spread
from gpu.summary import Results
from sim.tables import markdown

STEP = ("p50_s", "p99_s")


def cost(costs: Costs, stage: str) -> str:
    """Return throughput and step times of the servers."""
    if not costs.rows:
        return missing(stage)
    content = [
        [
            mode,
            plain(costs.of("resident", mode), 0),
            ranged(costs.of("tokens_per_s", mode), 0),
            "" if mode == STOCK else ranged(costs.against_stock("tokens_per_s", mode), 4),
            plain(costs.of("prefills", mode), 0),
            plain(costs.of("prefills_s", mode), 2),
            plain(costs.of("fresh_share", mode), 4),
        ]
        for mode in costs.modes
    ]
    columns = ("server", "slots", "tokens/s", "over stock", "prefills", "for these (s)", "fresh")
    parts = [markdown(columns, content)]
    for running in costs.step_sizes:
        content = [
            [
                mode,
                *(ranged(in_ms(costs.of(name, mode, running)), 3) for name in STEP),
                *(
                    "" if mode == STOCK else added(costs.against_stock(name, mode, running))
                    for name in STEP
                ),
            ]
            for mode in costs.modes
        ]
        headings = ("server", "P50 (ms)", "P99 (ms)", "P50 added", "P99 added")
        parts.append(f"**Steps with {running} running**\n\n{markdown(headings, content)}")
    if not costs.step_sizes:
        parts.append("Step times were not measured yet.")
    return "\n\n".join(parts)


def added(multiple: Spread | None) -> str:
    """Return what a multiple is above 1."""
    return "" if multiple is None else f"{multiple.median - 1:+.1%}"


def moves(results: Results) -> str:
    """Return the time of a round by the requests that change places with it, and of a pause."""
    if not results.moves:
        return missing("moves")
    still = {row["turn"]: row["mean_s"] for row in results.moves if not row["swaps"]}
    content = []
    for swaps in dict.fromkeys(row["swaps"] for row in results.moves):
        rows = [row for row in results.moves if row["swaps"] == swaps]
        added = [
            (row["mean_s"] - still[row["turn"]]) * row["rounds"] / row["pauses"]
            for row in rows
            if row["pauses"] and row["turn"] in still
        ]
        content.append(
            [
                str(swaps),
                f"{fmean(row['pauses'] / row['rounds'] for row in rows):.2f}",
                *(ranged(in_ms(spread([row[n] for row in rows])), 3) for n in ("mean_s", *STEP)),
                ranged(in_ms(spread(added)), 3) if added else "",
            ]
        )
    headings = ("swaps", "pauses a round", "mean (ms)", "P50 (ms)", "P99 (ms)", "a pause (ms)")
    return markdown(headings, content)
