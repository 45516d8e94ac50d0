"""The page's part on what the plugin costs."""

from __future__ import annotations

from statistics import fmean

from gpu.format import in_ms, missing, plain, ranged
from gpu.summary import STOCK, Results, Spread, spread, step_share, step_sizes, throughput_ratio
from sim.tables import markdown

STEP = ("p50_s", "p99_s")


def cost(results: Results) -> str:
    """Return throughput and step times of the servers."""
    if not results.throughput:
        return missing("throughput")

    def of(figure: str, **wanted: object) -> Spread | None:
        rows = [row for row in results.throughput if wanted.items() <= row.items()]
        values = [row[figure] for row in rows if row.get(figure) is not None]
        return spread(values) if values else None

    def over_stock(value: float | None) -> str:
        return "" if value is None else f"{value:.4f}"

    def share(value: float | None) -> str:
        return "" if value is None else f"{value:+.1%}"

    modes = list(dict.fromkeys(row["mode"] for row in results.throughput))
    modes.sort(key=("stock", "embedded", "remote").index)
    content = [
        [
            mode,
            ranged(of("tokens_per_s", mode=mode), 0),
            "" if mode == STOCK else over_stock(throughput_ratio(results, mode)),
            plain(of("fresh_share", mode=mode), 4),
        ]
        for mode in modes
    ]
    parts = [markdown(("server", "tokens/s", "over stock", "fresh"), content)]
    for running in step_sizes(results):
        content = [
            [
                mode,
                *(ranged(in_ms(of(name, mode=mode, running=running)), 3) for name in STEP),
                *(
                    "" if mode == STOCK else share(step_share(results, mode, running, name))
                    for name in STEP
                ),
            ]
            for mode in modes
        ]
        headings = ("server", "P50 (ms)", "P99 (ms)", "P50 added", "P99 added")
        parts.append(f"**Steps with {running} running**\n\n{markdown(headings, content)}")
    if not step_sizes(results):
        parts.append("Step times were not measured yet.")
    return "\n\n".join(parts)


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
