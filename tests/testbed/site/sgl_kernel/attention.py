"""Attention over a paged KV cache: gather each request's rows, then scaled-dot-product attention.

Shapes: q [tokens, heads, dim]; `k_buffer`, `v_buffer` [slots, kv heads, dim]; `req_to_token`
[pool rows, pool_len] the slot of every position; per request: `req_pool_indices`, `seq_lens` (all
positions, the new ones included).  `o` [tokens, heads, dim] is written in place.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def decode_attention_cpu(query: Tensor, k_buffer: Tensor, v_buffer: Tensor, *rest: Any) -> None:
    """One new token a request.  Stores its `key` and `value` at `loc` first, where given."""
    _decode(query, k_buffer, v_buffer, *_without_scales(rest))


def extend_attention_cpu(
    query: Tensor,
    k_extend: Tensor,
    v_extend: Tensor,
    o: Tensor,
    k_buffer: Tensor,
    v_buffer: Tensor,
    *rest: Any,
) -> None:
    """Several new tokens a request (prefill, verification), their KV already in the buffers."""
    _extend(query, o, k_buffer, v_buffer, *_without_scales(rest))


def _without_scales(rest: tuple[Any, ...]) -> tuple[Any, ...]:
    """Drop the KV scales (two floats), which 0.5.20 and newer pass and older versions do not."""
    if not isinstance(rest[0], float):
        return rest
    if rest[:2] != (1.0, 1.0):
        raise NotImplementedError("the CPU test bed has no quantised KV cache")
    return rest[2:]


def _decode(
    query: Tensor,
    k_buffer: Tensor,
    v_buffer: Tensor,
    o: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    loc: Tensor,
    attn_logits: Tensor,
    req_to_token: Tensor,
    req_pool_indices: Tensor,
    seq_lens: Tensor,
    scaling: float,
    logit_cap: float,
    is_cross_attention: bool = False,
    sliding_window: int = 0,
    encoder_lens: Tensor | None = None,
    sinks: Tensor | None = None,
) -> None:
    _refuse_unsupported(logit_cap, is_cross_attention, sinks)
    if key is not None and value is not None:
        k_buffer[loc] = key.view(-1, *k_buffer.shape[1:]).to(k_buffer.dtype)
        v_buffer[loc] = value.view(-1, *v_buffer.shape[1:]).to(v_buffer.dtype)
    requests = zip(req_pool_indices.tolist(), seq_lens.tolist(), strict=True)
    for i, (row, length) in enumerate(requests):
        first = max(0, length - sliding_window) if sliding_window else 0
        slots = req_to_token[row, first:length]
        o[i : i + 1] = _attend(query[i : i + 1], k_buffer, v_buffer, slots, scaling)


def _extend(
    query: Tensor,
    o: Tensor,
    k_buffer: Tensor,
    v_buffer: Tensor,
    req_to_token: Tensor,
    req_pool_indices: Tensor,
    seq_lens: Tensor,
    extend_seq_lens: Tensor,
    extend_start_loc: Tensor,
    max_len_extend: int,
    scaling: float,
    logit_cap: float,
    is_cross_attention: bool = False,
    sliding_window: int = 0,
    encoder_lens: Tensor | None = None,
    sinks: Tensor | None = None,
    tree_mask: Tensor | None = None,
    is_causal: bool = True,
) -> None:
    _refuse_unsupported(logit_cap, is_cross_attention, sinks)
    masked = 0
    requests = zip(
        req_pool_indices.tolist(),
        seq_lens.tolist(),
        extend_seq_lens.tolist(),
        extend_start_loc.tolist(),
        strict=True,
    )
    for row, length, new, start in requests:
        slots = req_to_token[row, :length]
        mask = None
        if tree_mask is not None:
            mask = torch.ones(new, length, dtype=torch.bool)
            mask[:, length - new :] = tree_mask[masked : masked + new * new].view(new, new)
            masked += new * new
        elif is_causal:
            mask = _causal(new, length, sliding_window)
        o[start : start + new] = _attend(
            query[start : start + new], k_buffer, v_buffer, slots, scaling, mask
        )


@lru_cache(maxsize=32)  # every layer of a step asks for the same few
def _causal(new: int, length: int, sliding_window: int) -> Tensor:
    """[new, length]: true where the new token (row) may attend to the position (column)."""
    at = torch.arange(length - new, length).unsqueeze(1)
    position = torch.arange(length)
    visible = position <= at
    return visible & (position > at - sliding_window) if sliding_window else visible


def _attend(
    query: Tensor,
    k_buffer: Tensor,
    v_buffer: Tensor,
    slots: Tensor,
    scale: float,
    mask: Tensor | None = None,
) -> Tensor:
    """Attention of one request: `query` [new, heads, dim], `slots` [length] in the buffers."""
    q = query.transpose(0, 1).unsqueeze(0)
    # index_select is several times faster than k_buffer[slots]
    k, v = (
        buffer.index_select(0, slots).to(q.dtype).transpose(0, 1).unsqueeze(0)
        for buffer in (k_buffer, v_buffer)
    )
    out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)
    return out[0].transpose(0, 1)


def _refuse_unsupported(logit_cap: float, is_cross_attention: bool, sinks: Tensor | None) -> None:
    if logit_cap or is_cross_attention or sinks is not None:
        raise NotImplementedError(
            "the CPU test bed has no logit cap, cross attention or attention sinks; "
            "use a dense decoder such as Llama"
        )
