"""Compare estimates (`PYTHONPATH=bench python -m estimators`): prints two tables, in a minute."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from estimators import acceptance, lengths


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


if __name__ == "__main__":
    main()
