"""What the plugin costs, against stock SGLang: the figures of `gpu.throughput`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpu.figures import Row
from gpu.names import MODES, STOCK
from gpu.spread import Spread, ratios, spread


@dataclass(frozen=True)
class Costs:
    """The rows of `gpu.throughput`: one for each measure, batch size, mode and turn."""

    rows: Sequence[Row]

    @property
    def modes(self) -> list[str]:
        """Modes that were measured."""
        return [mode for mode in MODES if any(row["mode"] == mode for row in self.rows)]

    @property
    def step_sizes(self) -> list[int]:
        """Batch sizes at which steps were timed."""
        return sorted({row["running"] for row in self.rows if row.get("p50_s") is not None})

    def of(self, figure: str, mode: str, running: int | None = None) -> Spread | None:
        """Return a figure of a mode over its turns; None if it has none."""
        found = list(self._by_turn(figure, mode, running).values())
        return spread(found) if found else None

    def against_stock(self, figure: str, mode: str, running: int | None = None) -> Spread | None:
        """Return a figure as a multiple of stock's, formed turn by turn."""
        return ratios(*(self._by_turn(figure, name, running) for name in (mode, STOCK)))

    def throughput_ratio(self, mode: str) -> float | None:
        """Return the throughput of a mode over stock's; None if missing."""
        found = self.against_stock("tokens_per_s", mode)
        return found.median if found else None

    def worst_step_share(self, mode: str) -> float | None:
        """Return the share that is added to the P99 of a step, at the size where it is most."""
        return max((share.median - 1 for share in self._step_shares(mode)), default=None)

    def most_step_share(self, mode: str) -> float | None:
        """Return the most that was added to the P99 of a step, at any size in any turn."""
        return max((share.most - 1 for share in self._step_shares(mode)), default=None)

    def _step_shares(self, mode: str) -> list[Spread]:
        found = [self.against_stock("p99_s", mode, size) for size in self.step_sizes]
        return [share for share in found if share]

    def _by_turn(self, figure: str, mode: str, running: int | None) -> dict[int, float]:
        return {
            row["turn"]: row[figure]
            for row in self.rows
            if row["mode"] == mode
            and running in (None, row["running"])
            and row.get(figure) is not None
        }
