"""Moving slot numbers, tokens and KV rows about.

Common shapes: `bs` requests; `req_to_token` [pool rows, pool_len] holds the KV slot of every token
position of every request; `req_pool_indices` [bs] are rows of it.  Outputs are written in place.
"""

from __future__ import annotations

import ctypes

import numpy as np
import torch
from torch import Tensor


def assign_req_to_token_pool_cpu(
    req_pool_indices: Tensor,
    req_to_token: Tensor,
    start_offset: Tensor,
    end_offset: Tensor,
    out_cache_loc: Tensor,
    pool_len: int,
) -> None:
    """Enter new slots (`out_cache_loc`, one request after the other) at positions [start, end)."""
    at = 0
    for row, start, end in _rows(req_pool_indices, start_offset, end_offset):
        req_to_token[row, start:end] = out_cache_loc[at : at + end - start]
        at += end - start


def assign_extend_cache_locs_cpu(
    req_pool_indices: Tensor,
    req_to_token: Tensor,
    start_offset: Tensor,
    end_offset: Tensor,
    out_cache_loc: Tensor,
    pool_len: int,
) -> None:
    """Read the slots of positions [start, end) into `out_cache_loc`, the reverse of the above."""
    at = 0
    for row, start, end in _rows(req_pool_indices, start_offset, end_offset):
        out_cache_loc[at : at + end - start] = req_to_token[row, start:end]
        at += end - start


def assign_draft_cache_locs_contiguous_cpu(
    req_pool_indices: Tensor,
    req_to_token: Tensor,
    seq_lens: Tensor,
    out_cache_loc: Tensor,
    pool_len: int,
    topk: int,
    speculative_num_steps: int,
) -> None:
    """Read the topk * steps slots after every committed prefix: room for the draft's KV."""
    width = topk * speculative_num_steps
    for i, (row, length) in enumerate(_rows(req_pool_indices, seq_lens)):
        out_cache_loc[i * width : (i + 1) * width] = req_to_token[row, length : length + width]


def build_draft_decode_metadata_cpu(
    req_to_token: Tensor,
    req_pool_indices: Tensor,
    seq_lens: Tensor,
    topk: int,
    num_steps: int,
    pool_len: int,
) -> Tensor:
    """Slot table of the draft's branches, [bs * topk, pool_len].

    Row `b * topk + t` is the committed prefix of request b, then the `num_steps` slots of branch t
    (which lie branch by branch after the prefix).
    """
    table = req_to_token.new_zeros(seq_lens.shape[0] * topk, req_to_token.shape[1])
    for b, (row, length) in enumerate(_rows(req_pool_indices, seq_lens)):
        branches = table[b * topk : (b + 1) * topk]
        branches[:, :length] = req_to_token[row, :length]
        drafts = req_to_token[row, length : length + topk * num_steps]
        branches[:, length : length + num_steps] = drafts.view(topk, num_steps)
    return table


def copy_all_layer_kv_cache_cpu(
    data_ptrs: Tensor, strides: Tensor, tgt_loc: Tensor, src_loc: Tensor
) -> None:
    """Copy KV rows `src_loc` to `tgt_loc` in every layer's buffer; the two may overlap.

    `data_ptrs` are the buffers' addresses and `strides` their row sizes in bytes.
    """
    if tgt_loc.numel() == 0:
        return
    target, source = tgt_loc.numpy(), src_loc.numpy()
    rows = int(max(target.max(), source.max())) + 1
    for address, row_bytes in _rows(data_ptrs, strides):
        memory = (ctypes.c_uint8 * (rows * row_bytes)).from_address(address)
        buffer = np.frombuffer(memoryview(memory), dtype=np.uint8).reshape(rows, row_bytes)
        buffer[target] = buffer[source]  # the right side is a copy, hence safe where they overlap


def fill_bonus_tokens_cpu(
    accept_tokens: Tensor, accept_lens: Tensor, bonus_tokens: Tensor, accept_stride: int
) -> None:
    """The last accepted token of every request; `accept_tokens` is [bs, accept_stride]."""
    last = torch.arange(accept_lens.numel()) * accept_stride + accept_lens.long() - 1
    bonus_tokens.copy_(accept_tokens.flatten()[last])


def fill_accept_out_cache_loc_cpu(
    accept_index: Tensor, out_cache_loc: Tensor, accept_out_cache_loc: Tensor
) -> None:
    """The slots of the accepted tokens, packed; `accept_index` holds -1 where none was accepted."""
    accepted = accept_index[accept_index > -1].long()
    accept_out_cache_loc[: accepted.numel()] = out_cache_loc[accepted]


def rotate_input_ids_cpu(
    input_ids: Tensor,
    extend_start_loc: Tensor,
    extend_seq_lens: Tensor,
    topk_index: Tensor,
    select_index: Tensor | None = None,
) -> None:
    """Shift every request's tokens left by one and put its newly predicted token behind them.

    The new token goes to the end of the request's span, or to `select_index[b]` where given.
    """
    new_tokens = topk_index.flatten()
    for b, (start, length) in enumerate(_rows(extend_start_loc, extend_seq_lens)):
        if length == 0:
            continue
        end = start + length
        input_ids[start : end - 1] = input_ids[start + 1 : end].clone()
        at = end - 1 if select_index is None else int(select_index[b])
        input_ids[at] = new_tokens[b]


def segment_packbits(*args: object, **kwargs: object) -> None:
    """Imported by SGLang 0.5.17 and never called on a CPU."""
    raise NotImplementedError("segment_packbits has no CPU form")


def _rows(*columns: Tensor) -> list[tuple[int, ...]]:
    """The tensors as Python integers, one tuple a request: element-wise indexing is far slower."""
    return list(zip(*(column.tolist() for column in columns), strict=True))
