"""Acceptance forced from a recording: what a model without trained weights cannot have of its own.

The target verifies as it always does and takes as long; then its verdict is replaced. A request
whose id ends in -I accepts in its rounds what request I of the recording accepted in its own. The
committed tokens are all the same one, so the texts mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch

from sim.traces import Traces

TOKEN = 100
"""Committed in every place: a token that all vocabularies have."""
_NUMBER = re.compile(r"-(\d+)$")


class ForcedAcceptance:
    """Replays `traces` in one scheduler process."""

    def __init__(self, traces: Traces) -> None:
        self.rows = 0
        """Rows whose acceptance came from the recording."""
        self._traces = traces

    def sample(
        self,
        original: Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
        verify_input: Any,
        batch: Any,
        *args: Any,
        **kw: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """AROUND hook on `eagle_sample`; returns as it does.

        These are the tokens by node of the draft [rows * nodes], the accept lengths with the bonus
        token [rows], and the accepted nodes, padded with -1 [rows, 1 + longest].
        """
        predict, accept_lens, accept_index = original(verify_input, batch, *args, **kw)
        if not accept_lens.numel():
            return predict, accept_lens, accept_index
        width = accept_index.shape[1]
        device = accept_index.device
        drafts = torch.tensor(
            [self._next(req, width - 1) for req in batch.reqs],
            dtype=accept_lens.dtype,
            pin_memory=device.type == "cuda",  # or the copy would wait for the GPU
        ).to(device, non_blocking=True)
        places = torch.arange(width, dtype=accept_index.dtype, device=device)
        nodes = accept_index[:, :1] + places
        return (
            predict.fill_(TOKEN),
            drafts + 1,
            torch.where(places <= drafts[:, None], nodes, -1).to(accept_index.dtype),
        )

    def _next(self, req: Any, most: int) -> int:
        """Return the accepted drafts of the next round of `req`; 0 if it replays nothing."""
        found = _NUMBER.search(req.rid)
        if found is None:
            return 0
        self.rows += 1
        index = int(found[1]) % len(self._traces)
        begin, end = self._traces.offsets[index : index + 2]
        this = getattr(req, "bench_round", 0)
        req.bench_round = this + 1
        # The overlap loop runs a request that has finished for one round more.
        return min(int(self._traces.accepted[min(begin + this, end - 1)]), most)
