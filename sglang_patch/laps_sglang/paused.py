"""The paused requests of one scheduler: resident, with their KV cache, in no running batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from laps_sglang.surgery import Batch, merge, split_off

Req = Any
"""A `sglang.srt.managers.schedule_batch.Req`."""


class PausedBatch:
    """A second ScheduleBatch beside SGLang's running one, and since when each request is in it."""

    def __init__(self) -> None:
        self._batch: Batch | None = None
        self._since: dict[str, int] = {}

    @property
    def reqs(self) -> Sequence[Req]:
        """Paused requests, some of which may have finished with a result that was in flight."""
        return () if self._batch is None else self._batch.reqs

    @property
    def batch(self) -> Batch | None:
        """The batch itself, for SGLang code that walks all batches; None when nothing is paused."""
        return self._batch

    def __len__(self) -> int:
        return len(self.reqs)

    def __bool__(self) -> bool:
        return self._batch is not None

    def drop_finished(self) -> None:
        """Forget requests that finished after they were paused; SGLang has released them."""
        if self._batch is not None and any(req.finished() for req in self._batch.reqs):
            self._batch.filter_batch()
            self._settle()

    def take_in(self, batch: Batch, rows: Iterable[int], iteration: int) -> int:
        """Move `rows` of `batch` in, as paused since `iteration`; return how many."""
        # Admission stays closed until a row leaves the running batch: one does now. The rows that
        # leave carry the flag along, and may be SGLang's running batch later.
        batch.batch_is_full = False
        out = split_off(batch, rows)
        for req in out.reqs:
            self._since[req.rid] = iteration
        self._batch = merge(self._batch, out)
        return len(out.reqs)

    def give_back(self, rows: Sequence[int]) -> Batch:
        """Remove `rows` and return them as a batch, ready to be merged into a running one."""
        assert self._batch is not None, "nothing is paused"
        out = self._batch if len(rows) == len(self._batch.reqs) else split_off(self._batch, rows)
        if out is self._batch:
            self._batch = None
        self._settle()
        return out

    def settled(self, iteration: int) -> list[int]:
        """Rows whose last result is in.

        In the overlap loop the result of a request's last round arrives one iteration after it was
        paused; until then its KV cache must not be given away.
        """
        return [row for row, req in enumerate(self.reqs) if self._since[req.rid] < iteration]

    def _settle(self) -> None:
        if self._batch is not None and self._batch.is_empty():
            self._batch = None
        alive = {req.rid for req in self.reqs}
        self._since = {rid: since for rid, since in self._since.items() if rid in alive}
