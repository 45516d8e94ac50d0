"""What `--enable-hierarchical-cache` needs of a GPU, for a CPU: page-locked memory, and the copy
between device and host pools in its simplest form (`--hicache-io-backend direct` with
`--hicache-mem-layout layer_first`). Here both pools are plain memory; all else is SGLang's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def install() -> None:
    """Let SGLang build its host pools."""
    from sglang.srt.mem_cache.pool_host import common, mha

    common.ALLOC_MEMORY_FUNCS["cpu"] = _allocate
    mha.transfer_kv_direct = transfer_kv_direct


def _allocate(dims: Sequence[int], dtype: torch.dtype, *_: Any, **__: Any) -> Tensor:
    # Not zeros, which would look like a KV cache: what was never written must show.
    return torch.full(tuple(dims), torch.nan, dtype=dtype)


def transfer_kv_direct(
    src_layers: Sequence[Tensor],
    dst_layers: Sequence[Tensor],
    src_indices: Tensor,
    dst_indices: Tensor,
    page_size: int,
) -> None:
    """Copy rows `src_indices` of every source layer to rows `dst_indices` of its counterpart."""
    for source, target in zip(src_layers, dst_layers, strict=True):
        target[dst_indices.long()] = source[src_indices.long()]
