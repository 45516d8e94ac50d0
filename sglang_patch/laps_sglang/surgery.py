"""Moving rows between two ScheduleBatches (sglang/srt/managers/schedule_batch.py).

`ScheduleBatch.filter_batch` and `merge_batch` rebind every per-row field and never write into a
tensor in place, so a shallow clone may share tensors with its origin. Three nested objects are
mutated in place and must be the clone's own: the speculative state, the sampling info, and its
penalizers.

In the overlap loop what a speculative request carries from round to round (next token, sequence
length, draft state) lives in SGLang's FutureMap under its pool index. A paused request keeps that
index, hence its state, however many rounds it sits out.
"""

from __future__ import annotations

import copy
import dataclasses
import weakref
from collections.abc import Iterable
from typing import Any

Batch = Any
"""A `sglang.srt.managers.schedule_batch.ScheduleBatch`; SGLang ships no types."""


def split_off(batch: Batch, rows: Iterable[int]) -> Batch:
    """Remove `rows` (indices, at least one) from `batch` and return them as a batch of their own.

    When every row goes, `batch` keeps stale tensors beside its empty `reqs`, as after SGLang's own
    `filter_batch`: test `is_empty()` before anything else reads it.
    """
    take = sorted(set(rows))
    if not take:
        raise ValueError("no rows to split off")
    taken = set(take)
    out = _clone(batch)
    out.filter_batch(keep_indices=take)
    batch.filter_batch(keep_indices=[row for row in range(len(batch.reqs)) if row not in taken])
    return out


def merge(into: Batch | None, batch: Batch | None) -> Batch | None:
    """Return the union of two batches; `into` is changed in place when both hold rows.

    An empty side is replaced and never merged, because its tensors are stale.
    """
    if batch is None or batch.is_empty():
        return into
    if into is None or into.is_empty():
        return batch
    into.merge_batch(batch)
    return into


def drop_finished(batch: Batch) -> None:
    """Remove finished rows from a running batch, before SGLang does, and reopen admission.

    SGLang reopens it when its own filter removes a row (Scheduler.update_running_batch).
    """
    rows = len(batch.reqs)
    batch.filter_batch()
    if len(batch.reqs) < rows:
        batch.batch_is_full = False


def _clone(batch: Batch) -> Batch:
    clone = copy.copy(batch)
    clone.reqs = list(batch.reqs)
    clone.inner_idle_batch = None
    if batch.spec_info is not None:
        clone.spec_info = copy.copy(batch.spec_info)
    if batch.sampling_info is not None:
        info = dataclasses.replace(batch.sampling_info)
        if info.custom_params is not None:
            info.custom_params = list(info.custom_params)
        if info.penalizer_orchestrator is not None:
            info.penalizer_orchestrator = _clone_penalizers(info.penalizer_orchestrator, clone)
        clone.sampling_info = info
    return clone


def _clone_penalizers(orchestrator: Any, owner: Batch) -> Any:
    """Clone a BatchedPenalizerOrchestrator for `owner` (sglang/srt/sampling/penaltylib)."""
    clone = copy.copy(orchestrator)
    clone._batch_ref = weakref.ref(owner)
    clone.penalizers = {}
    for kind, penalizer in orchestrator.penalizers.items():
        own = copy.copy(penalizer)
        own._orchestrator_ref = weakref.ref(clone)
        clone.penalizers[kind] = own
    return clone
