"""Write docs/results-gpu.md, its figures and summary.json from the raw data.

    python -m gpu.page [--out DIR]

Needs no GPU and no SGLang. What was not measured is named as missing. What there is to say of the
figures lies beside them, in DIR/seen.md.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpu.cost_tables import cost, moves
from gpu.figures import Row
from gpu.format import missing, plain, ranged, times
from gpu.names import ORACLE, STOCK, in_tables
from gpu.spread import spread
from gpu.summary import Contest, Results, read_results, summary
from gpu.targets import HARD, Target, contest_targets, other_targets
from sim.tables import markdown
from sim.traces import load_traces

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results" / "gpu"
TEXT = Path(__file__).with_name("page.md")
COLUMNS: tuple[tuple[str, str, float, int], ...] = (
    ("step (ms)", "step_p50_s", 1e3, 1),
    ("of it ours (ms)", "hooks_s", 1e3, 2),
    ("loop (us)", "loop_s", 1e6, 1),
    ("drift", "step_drift", 1.0, 2),
    ("P50 (s)", "p50_s", 1.0, 2),
    ("P99 (s)", "p99_s", 1.0, 2),
    ("TTFT (s)", "ttft_mean_s", 1.0, 2),
    ("P99 TTFT (s)", "ttft_p99_s", 1.0, 2),
    ("slowdown", "slowdown_mean", 1.0, 2),
    ("tokens/s", "throughput_tok_s", 1.0, 0),
    ("preemptions", "preemptions", 1.0, 0),
    ("demotions", "demotions", 1.0, 0),
    ("accept length", "accept_length", 1.0, 2),
    ("T~ error", "estimate_error", 1.0, 2),
)
"""Heading, figure, in which unit, and digits; beside the means and what they are multiples of."""
MULTIPLES = (
    ("mean / stock", STOCK, "mean_s"),
    ("mean / fcfs", "fcfs", "mean_s"),
    ("mean / srtf", "srtf", "mean_s"),
    ("mean / oracle", ORACLE, "mean_s"),
    ("P99 / stock", STOCK, "p99_s"),
    ("P99 / srtf", "srtf", "p99_s"),
)
"""Heading, whose figure, and which."""
FACED = (("offered", 1.0), ("full_round_s", 1e3))
"""What a run was up against, and in which unit it is shown."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="gpu.page", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the raw data")
    out: Path = parser.parse_args().out
    # The project's own page is of its own results; others keep theirs together.
    print(write(out, ROOT / "docs" if out.resolve() == RESULTS else out / "docs"))


def write(folder: Path, docs: Path) -> Path:
    """Write the page of a folder of raw data; return its path."""
    results = read_results(folder)
    seen = folder / "seen.md"
    (folder / "summary.json").write_text(json.dumps(summary(results), indent=1) + "\n")
    parts = {
        "machines": machines(results),
        "targets": contest_verdicts(results),
        "other_targets": other_verdicts(results),
        "seen": seen.read_text().rstrip() if seen.exists() else "",
        "running": largest(results, "running"),
        "resident": largest(results, "resident"),
        "compare": contest_part(results.compare, "compare", docs),
        "others": "".join(
            f"\n\n### `{stage}.jsonl`\n\n{contest_part(of, stage, docs)}"
            for stage, of in results.others.items()
        ),
        "identity": identity(results),
        "cost": cost(results.throughput, "throughput"),
        "large_cost": cost(results.large_throughput, "throughput --large"),
        "moves": moves(results),
        "large": contest_part(results.large, "large", docs),
        "longrun": contest_part(longrun_of(results, "compare"), "longrun", docs),
        "large_longrun": contest_part(longrun_of(results, "large"), "longrun-large", docs),
        "replay": replay(results),
        "recordings": recordings(folder),
    }
    path = docs / "results-gpu.md"
    docs.mkdir(parents=True, exist_ok=True)
    path.write_text(re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], TEXT.read_text()))
    return path


def largest(results: Results, name: str) -> str:
    """Return the largest of a number that the rows of the comparisons have."""
    rows = (*results.compare.rows, *results.large.rows)
    return str(max((row[name] for row in rows), default="(not run)"))


def machines(results: Results) -> str:
    """Return where and with what each stage was run."""
    if not results.machines:
        return "Nothing has been run yet."
    content = [
        [
            stage,
            note["date"],
            f"{note['gpus']} x {note['gpu']}" if note["gpu"] else "**no GPU: CPU test bed**",
            note.get("driver") or "",
            note["sglang"],
            f"{note['model']}, {note['draft']}",
            f"`{note['sglang_args']}`" + (" (`--short`)" if note.get("short") else ""),
        ]
        for stage, note in results.machines.items()
    ]
    headings = ("stage", "date", "GPU", "driver", "SGLang", "models", "SGLang's arguments")
    return markdown(headings, content)


def longrun_of(results: Results, stage: str) -> Contest:
    """Return the long runs on the worker of a stage; none if there are none."""
    return results.longrun.get(stage, Contest([]))


def contest_verdicts(results: Results) -> str:
    """Return what was to be reached, and what was in each comparison."""
    judged = {"real texts": results.compare, "8B shape": results.large}
    judged |= {f"`{stage}`": of for stage, of in results.others.items() if {*HARD} <= {*of.loads}}
    judged |= {
        "real texts, long runs (simulated)": longrun_of(results, "compare"),
        "8B shape, long runs (simulated)": longrun_of(results, "large"),
    }
    content = [
        [same[0].what, same[0].wanted, *(verdict(target) for target in same)]
        for same in zip(*map(contest_targets, judged.values()), strict=True)
    ]
    return markdown(("figure", "target", *judged), content)


def verdict(target: Target) -> str:
    """Say what was found, with what, and what the oracle has: what any order can reach."""
    notes = [f"`{target.form}`"] if target.form else []
    notes += [] if target.oracle is None else [f"oracle: {target.oracle:.3g}"]
    return f"{target.verdict} ({'; '.join(notes)})" if notes else target.verdict


def other_verdicts(results: Results) -> str:
    """Return what was to be reached in costs and identity, and what was."""
    content = [[target.what, target.wanted, target.verdict] for target in other_targets(results)]
    return markdown(("figure", "target", "measured"), content)


def contest_part(contest: Contest, stage: str, docs: Path) -> str:
    """Return a table for each load, and draw mean and P99 by policy."""
    if not contest.rows:
        return missing(stage)
    from gpu.plots import by_policy  # matplotlib is of the page alone

    parts = []
    for load in contest.loads:
        rows = [row for row in contest.rows if row["load"] == load]
        parts.append(f"**Load {load}** ({size(rows)})\n\n{contest_table(contest, load)}")
    path = docs / "figures" / f"gpu-{stage}.svg"
    by_policy(contest, path)
    parts.append(f"![Mean and P99 by policy and load](figures/{path.name})")
    return "\n\n".join(parts)


def contest_table(contest: Contest, load: str) -> str:
    """Return the line of each policy under a load; a figure that nobody has is left out."""
    policies = contest.policies(load)
    columns = [
        column
        for column in COLUMNS
        if any(contest.of(load, policy, column[1]) for policy in policies)
    ]
    multiples = [
        (heading, yard, name)
        for heading, yard, name in MULTIPLES
        if any(contest.against(load, policy, yard, name) for policy in policies)
    ]
    content = [
        [
            f"`{policy}`{fewer(contest, load, policy)}",
            ranged(contest.of(load, policy, "mean_s"), 2),
            *(ranged(contest.against(load, policy, yard, name), 3) for _, yard, name in multiples),
            *(
                plain(times(contest.of(load, policy, name), unit), digits)
                for _, name, unit, digits in columns
            ),
        ]
        for policy in policies
    ]
    headings = (*(heading for heading, *_ in multiples), *(heading for heading, *_ in columns))
    return markdown(("policy", "mean (s)", *headings), content)


def fewer(contest: Contest, load: str, policy: str) -> str:
    """Say how many rounds a policy has, if others have more."""
    mine = len(contest.by_round(load, policy, "mean_s"))
    most = max(len(contest.by_round(load, other, "mean_s")) for other in contest.policies(load))
    return f" ({mine} of {most} rounds)" if mine < most else ""


def size(rows: Sequence[Row]) -> str:
    """Say how much was run, and what must be known to trust it."""
    rounds = len({row["round"] for row in rows})
    said = f"{rounds} rounds of up to {max(row['n'] for row in rows):,} requests"
    late = [row["lateness_p99_s"] for row in rows if "lateness_p99_s" in row]
    if not late:
        return f"{said}, simulated"
    said += f", of which {min(row['counted'] for row in rows):,} or more count"
    failed = sum(row["failed"] for row in rows)
    fallbacks = sum(row["fallbacks"] for row in rows)
    return (
        f"{said}; {failed} failed, P99 of lateness at most {1e3 * max(late):.0f} ms, the service "
        f"fell silent {fallbacks} times"
    )


def identity(results: Results) -> str:
    """Return the counts of each case."""
    if not results.identity:
        return missing("identity")
    headings = ("case", "type", "GPUs", "pauses", "demotions", "requests", "differences")
    content = [
        [
            case,
            row.get("dtype") or "the model's",
            str(row.get("tp", 1)),
            f"{row['pauses']:,}",
            f"{row['demotions']:,}" if "demotions" in row else "",
            f"{row['requests']:,}",
            str(row["differences"]),
            f"{row['stock_differences']} of {row['stock_requests']}",
        ]
        for case, row in results.identity.items()
    ]
    return markdown((*headings, "stock differences"), content)


def replay(results: Results) -> str:
    """Return measured and simulated means, by load and policy."""
    if not results.replay:
        return missing("replay")
    headings = (
        *("load", "policy", "offered", "full round (ms)"),
        *("measured (s)", "simulated (s)", "measured / simulated"),
    )
    parts = []
    for stage in dict.fromkeys(row["stage"] for row in results.replay):
        rows = [row for row in results.replay if row["stage"] == stage]
        loads = list(dict.fromkeys(row["load"] for row in rows))
        runs = {(row["load"], row["policy"]) for row in rows}
        content = []
        for load, policy in sorted(runs, key=lambda run: (loads.index(run[0]), in_tables(run[1]))):
            of = [row for row in rows if (row["load"], row["policy"]) == (load, policy)]
            measured, simulated = ([row[n] for row in of] for n in ("measured_mean_s", "mean_s"))
            ratios = [mine / its for mine, its in zip(measured, simulated, strict=True)]
            offered, full_ms = ([k * row[n] for row in of] for n, k in FACED)
            shown = (offered, full_ms, measured, simulated, ratios)
            figures = (ranged(spread(values), 2) for values in shown)
            content.append([load, f"`{policy}`", *figures])
        parts.append(f"**`{stage}.jsonl`**\n\n{markdown(headings, content)}")
    return "\n\n".join(parts)


def recordings(folder: Path) -> str:
    """Return what the recordings hold."""
    content = []
    for path in sorted(folder.glob("acceptance-*.npz")):
        traces = load_traces(path)
        rounds = len(traces.accepted)
        content.append(
            [
                path.stem.removeprefix("acceptance-"),
                f"{len(traces):,}",
                f"{rounds:,}",
                f"{1 + float(np.mean(traces.accepted)):.2f}",
            ]
        )
    headings = ("drafts", "requests", "rounds", "mean accept length")
    return markdown(headings, content) if content else missing("record")


if __name__ == "__main__":
    main()
