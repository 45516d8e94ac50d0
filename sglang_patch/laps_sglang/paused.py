"""The paused requests of one scheduler: resident, with their KV cache, in no running batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from laps_sglang.surgery import Batch, merge, split_off

Req = Any
"""A `sglang.srt.managers.schedule_batch.Req`."""


class PausedBatch:
    """A second ScheduleBatch beside SGLang's running one, and since when each request is in it.

    There may be a thousand paused requests, and most steps do not touch them: only those that can
    have changed since the last step are looked at.
    """

    def __init__(self) -> None:
        self.changes = 0
        """Goes up whenever a request pauses, resumes, or may have been marked by SGLang."""
        self._batch: Batch | None = None
        self._since: dict[str, int] = {}
        self._unsettled: list[Req] = []
        self._exposed = False
        self._ending: list[Req] = []

    @property
    def reqs(self) -> Sequence[Req]:
        """Paused requests, some of which may have finished with a result that was in flight."""
        return () if self._batch is None else self._batch.reqs

    def expose(self) -> Batch | None:
        """Return the batch for SGLang code that may mark requests to finish; None if empty."""
        self.changes += 1
        self._exposed = True
        return self._batch

    def __len__(self) -> int:
        return len(self.reqs)

    def __bool__(self) -> bool:
        return self._batch is not None

    def drop_finished(self) -> None:
        """Forget requests that finished after they were paused; SGLang has released them.

        Called once an iteration: by the next one the result that was in flight has come.
        """
        if any(req.finished() for req in self._unsettled) and self._batch is not None:
            self.changes += 1
            self._batch.filter_batch()
            alive = {req.rid for req in self._batch.reqs}
            for req in self._unsettled:
                if req.rid not in alive:
                    self._since.pop(req.rid, None)
            self._drop_if_empty()
        self._unsettled.clear()

    def ending(self) -> list[Req]:
        """Requests that were aborted while paused: one more round frees their memory."""
        if self._exposed:
            self._exposed = False
            self._ending = [req for req in self.reqs if req.to_finish is not None]
        elif self._ending:
            self._ending = [req for req in self._ending if req.rid in self._since]
        return self._ending

    def take_in(self, batch: Batch, rows: Iterable[int], iteration: int) -> int:
        """Move `rows` of `batch` in, as paused since `iteration`; return how many."""
        self.changes += 1
        # Admission stays closed until a row leaves the running batch: one does now. The rows that
        # leave carry the flag along, and may be SGLang's running batch later.
        batch.batch_is_full = False
        out = split_off(batch, rows)
        for req in out.reqs:
            self._since[req.rid] = iteration
        self._unsettled.extend(out.reqs)
        self._ending.extend(req for req in out.reqs if req.to_finish is not None)
        self._batch = merge(self._batch, out)
        return len(out.reqs)

    def give_back(self, rows: Sequence[int]) -> Batch:
        """Remove `rows` and return them as a batch, ready to be merged into a running one."""
        assert self._batch is not None, "nothing is paused"
        self.changes += 1
        out = self._batch if len(rows) == len(self._batch.reqs) else split_off(self._batch, rows)
        if out is self._batch:
            self._batch = None
        for req in out.reqs:
            del self._since[req.rid]
        self._drop_if_empty()
        return out

    def settled(self, iteration: int) -> list[Req]:
        """Requests whose last result is in.

        In the overlap loop the result of a request's last round arrives one iteration after it was
        paused; until then its KV cache must not be given away.
        """
        return [req for req in self.reqs if self._since[req.rid] < iteration]

    def row(self, req: Req) -> int:
        """Return the row of a paused request."""
        return next(row for row, other in enumerate(self.reqs) if other is req)

    def _drop_if_empty(self) -> None:
        if self._batch is not None and self._batch.is_empty():
            self._batch = None
