"""A model that costs nothing: SGLang's scheduler, and the plugin in it, are all that is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from engine.fake_model import STRIDE, FakeModel, batch_result, draft_input


class FakePacedEvent:
    """The event for which the scheduler waits before it reads a result: one in `step_s`.

    Waits as CUDA does, spinning. What follows at once, as on a GPU: the result, the report, and the
    decision on the step after.
    """

    step_s = 0.0
    _last = 0.0
    _waited = 0.0

    @classmethod
    def waited(cls) -> float:
        """Return the seconds spent waiting since the last call."""
        waited, cls._waited = cls._waited, 0.0
        return waited

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kw: None

    def synchronize(self) -> None:
        """Wait until the batch would be done."""
        cls, begin = FakePacedEvent, time.perf_counter()
        while time.perf_counter() < cls._last + cls.step_s:
            pass
        cls._last = time.perf_counter()
        cls._waited += cls._last - begin


class FakeCheapModel(FakeModel):
    """Returns tokens without meaning."""

    def forward_batch_generation(self, batch: Any, on_publish: Any = None, **kw: Any) -> Any:
        rows = len(batch.reqs)
        bonus = torch.full((rows,), 5, dtype=torch.int64)
        if batch.forward_mode.is_extend():
            on_publish(batch.seq_lens)
            return batch_result(
                next_token_ids=bonus,
                can_run_cuda_graph=False,
                new_seq_lens=batch.seq_lens,
                next_draft_input=draft_input(bonus, batch.seq_lens),
            )
        accept_lens = torch.tensor(
            [1 + self._random.randrange(STRIDE) for _ in range(rows)], dtype=torch.int32
        )
        lengths = batch.seq_lens + accept_lens
        on_publish(lengths)
        return batch_result(
            next_token_ids=torch.full((rows * STRIDE,), 5, dtype=torch.int64),
            accept_lens=accept_lens,
            new_seq_lens=lengths,
            speculative_num_draft_tokens=STRIDE,
            next_draft_input=draft_input(bonus, lengths),
        )
