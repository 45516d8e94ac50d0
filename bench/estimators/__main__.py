"""Compare estimates (`PYTHONPATH=bench python -m estimators`): prints tables, in a minute.

What is on the results page goes into bench/results/estimates.json.
"""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from estimators import acceptance, lengths, stages

RESULTS = Path(__file__).parents[1] / "results" / "estimates.json"


def main() -> None:
    console = Console()
    by_name = acceptance.errors()
    table = Table(title=f"Rounds left, |log error|: first {acceptance.EARLY} rounds, later")
    table.add_column("estimate")
    for process in acceptance.processes():
        table.add_column(process)
    for name, by_process in by_name.items():
        table.add_row(name, *(f"{early:.3f} {late:.3f}" for early, late in by_process.values()))
    console.print(table)
    table = Table("prediction", "|log error|", "predictions", title="Tokens left, by request")
    for name, (error, predictions) in lengths.errors().items():
        table.add_row(name, f"{error:.3f}", f"{predictions:.1f}")
    console.print(table)
    by_stage = stages.errors()
    table = Table("T~ off by, mean (median)", *stages.STAGES)
    for name, errors in by_stage.items():
        table.add_row(name, *(f"{mean:.1%} ({half:.1%})" for mean, half in errors.values()))
    console.print(table)
    RESULTS.write_text(json.dumps(by_stage, indent=1) + "\n")


if __name__ == "__main__":
    main()
