"""Finished cells on disk, a JSON object a line: what makes an experiment resumable."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sim.cells import Cell, Row
from sim.experiments.catalogue import Experiment


@dataclass(frozen=True)
class Store:
    """Rows of all experiments, one file each, in one folder."""

    folder: Path

    def append(self, experiment: Experiment, row: Row) -> None:
        """Keep a finished cell."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"sim-{experiment.name}.jsonl"
        cut_short = path.exists() and not path.read_text().endswith("\n")
        with path.open("a") as file:
            file.write("\n" * cut_short + json.dumps(row) + "\n")

    def rows(self, experiment: Experiment) -> list[Row]:
        """Return the rows of the experiment as it is defined now, in its order."""
        done = self._by_digest()
        cells = experiment.cells()
        return [{**done[cell.digest], **cell.axes} for cell in cells if cell.digest in done]

    def missing(self, experiment: Experiment) -> list[Cell]:
        """Return the cells that have not been simulated, by this experiment or by another one."""
        done = self._by_digest()
        cells = {cell.digest: cell for cell in experiment.cells()}
        return [cell for digest, cell in cells.items() if digest not in done]

    def _by_digest(self) -> dict[str, Row]:
        rows = {}
        for path in sorted(self.folder.glob("sim-*.jsonl")):
            for line in path.read_text().splitlines():
                with suppress(ValueError):  # a run was cut short while it wrote this line
                    row = json.loads(line)
                    rows[row["digest"]] = row
        return rows
