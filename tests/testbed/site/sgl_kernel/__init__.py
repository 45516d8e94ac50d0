"""Pure-PyTorch stand-in for the CPU build of `sgl_kernel`, which PyPI does not have.

Holds what SGLang 0.5.17 to 0.5.23 imports under SGLANG_USE_CPU_ENGINE=1 for a dense decoder,
speculative decoding included.  Slow, simple and readable: for this project's tests and demo, on
PYTHONPATH only and never installed.  Argument names and order are those of the real operators.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ._shadow import refuse_to_shadow

refuse_to_shadow(Path(__file__).parent)

from .attention import decode_attention_cpu, extend_attention_cpu  # noqa: E402
from .bookkeeping import (  # noqa: E402
    assign_draft_cache_locs_contiguous_cpu,
    assign_extend_cache_locs_cpu,
    assign_req_to_token_pool_cpu,
    build_draft_decode_metadata_cpu,
    copy_all_layer_kv_cache_cpu,
    fill_accept_out_cache_loc_cpu,
    fill_bonus_tokens_cpu,
    rotate_input_ids_cpu,
    segment_packbits,
)
from .tree import build_tree_kernel_efficient_cpu, verify_tree_greedy_cpu  # noqa: E402

__version__ = "0.1.0+laps.stand.in"
IS_LAPS_STAND_IN = True

__all__ = [
    "assign_draft_cache_locs_contiguous_cpu",
    "assign_extend_cache_locs_cpu",
    "assign_req_to_token_pool_cpu",
    "build_draft_decode_metadata_cpu",
    "build_tree_kernel_efficient_cpu",
    "copy_all_layer_kv_cache_cpu",
    "decode_attention_cpu",
    "extend_attention_cpu",
    "fill_accept_out_cache_loc_cpu",
    "fill_bonus_tokens_cpu",
    "rotate_input_ids_cpu",
    "segment_packbits",
    "verify_tree_greedy_cpu",
]

# SGLang takes these two from torch.ops; it does so with getattr, so plain functions will do.
for _operator in (decode_attention_cpu, extend_attention_cpu):
    setattr(torch.ops.sgl_kernel, _operator.__name__, _operator)
