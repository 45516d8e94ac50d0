"""SGLang's page allocator launches two Triton kernels for KV pages of more than one token; these
are the same two for a CPU, launched the same way: `kernel[grid](arguments)`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Launcher:
    """A function with a Triton kernel's syntax; the grid means nothing to it."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __getitem__(self, grid: object) -> Callable[..., None]:
        return self._function


def alloc_extend(
    prefix_lens: Tensor,
    seq_lens: Tensor,
    last_loc: Tensor,
    free_pages: Tensor,
    out_indices: Tensor,
    bs_upper: int,
    page_size: int,
) -> None:
    """Slots for positions [prefix, seq) of every request, one request after the other.

    A request first fills the page of its last slot (`last_loc`) and then takes pages from the front
    of `free_pages`.  Where those are too few nothing is written: the caller counts and gives up.
    """
    at = taken = 0
    lengths = zip(prefix_lens.tolist(), seq_lens.tolist(), last_loc.tolist(), strict=True)
    for prefix, length, last in lengths:
        owned = -(prefix // -page_size)
        new = -(length // -page_size) - owned
        if taken + new > len(free_pages):
            return
        current = torch.tensor([last + 1 - prefix % page_size])
        pages = torch.cat([current, free_pages[taken : taken + new] * page_size])
        position = torch.arange(prefix, length)
        slots = pages[position // page_size - owned + 1] + position % page_size
        out_indices[at : at + len(slots)] = slots
        at, taken = at + len(slots), taken + new


def alloc_decode(
    seq_lens: Tensor,
    last_loc: Tensor,
    free_pages: Tensor,
    out_indices: Tensor,
    bs_upper: int,
    page_size: int,
) -> None:
    """One slot a request, for its last position."""
    alloc_extend(seq_lens - 1, seq_lens, last_loc, free_pages, out_indices, bs_upper, page_size)
