"""The paused requests of one scheduler: resident, with their KV cache, in no running batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from laps_sglang.surgery import Batch, merge, split_off

Req = Any
"""A `sglang.srt.managers.schedule_batch.Req`."""

SEGMENT = 32
"""Most rows of a segment: what a row that leaves costs grows with the batch that it leaves."""


class PausedBatch:
    """ScheduleBatches beside SGLang's running one, and since when each request is in them.

    There may be a thousand paused requests, and most steps touch few of them or none. So they are
    held in small batches, the segments, and only those that can have changed are looked at. Those
    that pause together make a segment: merging it into another costs as much as splitting it off.
    """

    def __init__(self) -> None:
        self.changes = 0
        """Goes up whenever a request pauses, resumes, or may have been marked by SGLang."""
        self._segments: dict[int, Batch] = {}
        """By id(); a dict, so that one leaves without a look at the others."""
        self._home: dict[int, Batch] = {}
        """Segment of each request, by the request's id()."""
        self._since: dict[int, int] = {}
        self._unsettled: list[Req] = []
        self._exposed = False
        self._ending: list[Req] = []

    @property
    def reqs(self) -> list[Req]:
        """Paused requests, some of which may have finished with a result that was in flight."""
        return [req for segment in self._segments.values() for req in segment.reqs]

    def expose(self) -> Sequence[Batch]:
        """Return the batches for SGLang code that may mark requests to finish."""
        self.changes += 1
        self._exposed = True
        return tuple(self._segments.values())

    def __len__(self) -> int:
        return len(self._home)

    def __contains__(self, req: Req) -> bool:
        return id(req) in self._home

    def drop_finished(self) -> None:
        """Forget requests that finished after they were paused; SGLang has released them.

        Called once an iteration: by the next one the result that was in flight has come.
        """
        done = [req for req in self._unsettled if req in self and req.finished()]
        self._unsettled.clear()
        if not done:
            return
        self.changes += 1
        for segment in self._homes(done):
            segment.filter_batch()
            if segment.is_empty():
                del self._segments[id(segment)]
        self._forget(done)

    def ending(self) -> list[Req]:
        """Requests that were aborted while paused: one more round frees their memory."""
        if self._exposed:
            self._exposed = False
            self._ending = [req for req in self.reqs if req.to_finish is not None]
        elif self._ending:
            self._ending = [req for req in self._ending if req in self]
        return self._ending

    def take_in(self, batch: Batch, rows: Iterable[int], iteration: int) -> None:
        """Move `rows` of `batch` in, as paused since `iteration`."""
        self.changes += 1
        # Admission stays closed until a row leaves the running batch: one does now. The rows that
        # leave carry the flag along, and may be SGLang's running batch later.
        batch.batch_is_full = False
        out = split_off(batch, rows)
        for req in out.reqs:
            self._since[id(req)] = iteration
        self._unsettled.extend(out.reqs)
        self._ending.extend(req for req in out.reqs if req.to_finish is not None)
        for segment in _pieces(out):
            self._segments[id(segment)] = segment
            self._home.update((id(req), segment) for req in segment.reqs)

    def give_back(self, reqs: Iterable[Req]) -> Batch:
        """Remove `reqs`, at least one, and return them as one batch, to be merged or to run."""
        self.changes += 1
        leaving = {id(req): req for req in reqs}
        out: Batch | None = None
        for segment in self._homes(leaving.values()):
            rows = [row for row, req in enumerate(segment.reqs) if id(req) in leaving]
            if len(rows) == len(segment.reqs):
                del self._segments[id(segment)]
                out = merge(out, segment)
            else:
                out = merge(out, split_off(segment, rows))
        assert out is not None, "nobody to give back"
        self._forget(leaving.values())
        return out

    def settled(self, iteration: int) -> list[Req]:
        """Requests whose last result is in.

        In the overlap loop the result of a request's last round arrives one iteration after it was
        paused; until then its KV cache must not be given away.
        """
        return [req for req in self.reqs if self._since[id(req)] < iteration]

    def _homes(self, reqs: Iterable[Req]) -> Iterator[Batch]:
        """Give the segments of `reqs`, each once."""
        return iter({id(home): home for req in reqs for home in [self._home[id(req)]]}.values())

    def _forget(self, reqs: Iterable[Req]) -> None:
        for req in reqs:
            del self._home[id(req)], self._since[id(req)]


def _pieces(batch: Batch) -> Iterator[Batch]:
    """Cut `batch` into segments."""
    while len(batch.reqs) > SEGMENT:
        yield split_off(batch, range(SEGMENT))
    yield batch
