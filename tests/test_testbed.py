"""The CPU test bed's attention and bookkeeping, and its refusal to shadow a real kernel."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from beam_search import expected_mask, random_beam
from testbed.launch import SITE
from testbed.site.laps_testbed import paging
from testbed.site.sgl_kernel import attention, bookkeeping
from testbed.site.sgl_kernel._shadow import refuse_to_shadow

HEADS, KV_HEADS, DIM, SLOTS, POOL_LEN = 4, 2, 8, 64, 24
SCALE = DIM**-0.5


# ---- attention ----------------------------------------------------------------------------------


@dataclass
class Cache:
    """A paged cache with requests of `lengths` in scattered slots, and the same KV in order."""

    lengths: list[int]

    def __post_init__(self) -> None:
        torch.manual_seed(sum(self.lengths))
        self.k, self.v = torch.randn(2, SLOTS, KV_HEADS, DIM)
        slots = torch.split(torch.randperm(SLOTS)[: sum(self.lengths)], self.lengths)
        self.req_to_token = torch.zeros(len(self.lengths) + 1, POOL_LEN, dtype=torch.int32)
        self.rows = torch.arange(len(self.lengths), 0, -1)  # not in order, and row 0 unused
        for row, own in zip(self.rows, slots, strict=True):
            self.req_to_token[row, : len(own)] = own.int()
        self.slots = slots

    def expected(self, b: int, q: Tensor, mask: Tensor) -> Tensor:
        """Softmax attention written out; q [new, heads, dim], mask [new, length]."""
        k, v = (x[self.slots[b]].repeat_interleave(HEADS // KV_HEADS, 1) for x in (self.k, self.v))
        scores = torch.einsum("qhd,khd->hqk", q, k) * SCALE
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
        return torch.einsum("hqk,khd->qhd", weights, v)


def scales(given: bool) -> tuple[float, ...]:
    return (1.0, 1.0) if given else ()  # 0.5.20 and newer pass the KV scales


@pytest.mark.parametrize("with_scales", [True, False])
@pytest.mark.parametrize("window", [0, 3])
def test_decode_stores_the_new_token_and_attends(with_scales: bool, window: int) -> None:
    cache = Cache([1, 7, 12])
    q, new_k, new_v = (torch.randn(3, heads, DIM) for heads in (HEADS, KV_HEADS, KV_HEADS))
    loc = torch.stack([own[-1] for own in cache.slots])
    out, lengths = torch.zeros_like(q), torch.tensor(cache.lengths)
    table = (cache.req_to_token, cache.rows, lengths, SCALE, 0.0, False, window)
    attention.decode_attention_cpu(
        q, cache.k, cache.v, *scales(with_scales), out, new_k, new_v, loc, torch.empty(0), *table
    )
    assert torch.equal(cache.k[loc], new_k)
    assert torch.equal(cache.v[loc], new_v)
    for b, length in enumerate(cache.lengths):
        mask = torch.arange(length).unsqueeze(0) >= (length - window if window else 0)
        torch.testing.assert_close(out[b : b + 1], cache.expected(b, q[b : b + 1], mask))


@pytest.mark.parametrize("with_scales", [True, False])
def test_extend_is_causal_behind_a_cached_prefix(with_scales: bool) -> None:
    cache, new = Cache([5, 9, 4]), [5, 2, 1]  # no prefix, a prefix of 7, a prefix of 3
    q = torch.randn(sum(new), HEADS, DIM)
    starts = [0, 5, 7]
    out = extend(cache, q, new, starts, with_scales)
    for b, (length, count, start) in enumerate(zip(cache.lengths, new, starts, strict=True)):
        mask = torch.ones(count, length, dtype=torch.bool).tril(length - count)
        own = slice(start, start + count)
        torch.testing.assert_close(out[own], cache.expected(b, q[own], mask))


def test_extend_follows_the_tree_mask_and_sees_the_whole_prefix() -> None:
    n, rng = 6, random.Random(0)
    cache = Cache([6 + 4, 6])
    beams = [random_beam(rng, 2, 3, n) for _ in cache.lengths]
    q, masks = torch.randn(2 * n, HEADS, DIM), [expected_mask(beam) for beam in beams]
    flat = torch.cat([mask.flatten() for mask in masks])
    out = extend(cache, q, [n, n], [0, n], True, flat)
    for b, (length, mask) in enumerate(zip(cache.lengths, masks, strict=True)):
        wide = torch.cat([torch.ones(n, length - n, dtype=torch.bool), mask], dim=1)
        own = slice(b * n, (b + 1) * n)
        torch.testing.assert_close(out[own], cache.expected(b, q[own], wide))


def extend(
    cache: Cache,
    q: Tensor,
    new: list[int],
    starts: list[int],
    with_scales: bool,
    tree_mask: Tensor | None = None,
) -> Tensor:
    out, unused = torch.zeros_like(q), torch.empty(0)
    lengths = (torch.tensor(cache.lengths), torch.tensor(new), torch.tensor(starts), max(new))
    tail = (SCALE, 0.0, False, 0, None, None, tree_mask, True)
    buffers = (cache.k, cache.v, *scales(with_scales), cache.req_to_token, cache.rows)
    attention.extend_attention_cpu(q, unused, unused, out, *buffers, *lengths, *tail)
    return out


def test_unsupported_attention_is_refused() -> None:
    cache = Cache([2])
    q = torch.randn(1, HEADS, DIM)
    rest = (q, None, None, q, q, cache.req_to_token, cache.rows, torch.tensor([2]), SCALE)
    with pytest.raises(NotImplementedError, match="logit cap"):
        attention.decode_attention_cpu(q, cache.k, cache.v, *rest, 30.0)
    with pytest.raises(NotImplementedError, match="quantised"):
        attention.decode_attention_cpu(q, cache.k, cache.v, 0.5, 0.5, *rest, 0.0)


# ---- bookkeeping --------------------------------------------------------------------------------


def test_slots_are_entered_and_read_back() -> None:
    table, rows = torch.zeros(4, POOL_LEN, dtype=torch.int32), torch.tensor([2, 0, 3])
    start, end = torch.tensor([0, 4, 2]), torch.tensor([3, 4, 7])
    slots = torch.arange(100, 108)
    bookkeeping.assign_req_to_token_pool_cpu(rows, table, start, end, slots, POOL_LEN)
    assert table[2, :3].tolist() == [100, 101, 102]
    assert table[3, 2:7].tolist() == [103, 104, 105, 106, 107]
    assert int((table != 0).sum()) == len(slots)
    back = torch.zeros(8, dtype=torch.int64)
    bookkeeping.assign_extend_cache_locs_cpu(rows, table, start, end, back, POOL_LEN)
    assert torch.equal(back, slots)


def test_draft_branches_share_the_prefix_and_own_their_slots() -> None:
    topk, steps = 2, 3
    table = torch.arange(2 * POOL_LEN, dtype=torch.int32).view(2, POOL_LEN)
    rows, lengths = torch.tensor([1, 0]), torch.tensor([5, 2])
    room = torch.zeros(2 * topk * steps, dtype=torch.int64)
    bookkeeping.assign_draft_cache_locs_contiguous_cpu(
        rows, table, lengths, room, POOL_LEN, topk, steps
    )
    branches = bookkeeping.build_draft_decode_metadata_cpu(
        table, rows, lengths, topk, steps, POOL_LEN
    )
    for b, (row, length) in enumerate(zip(rows.tolist(), lengths.tolist(), strict=True)):
        for t in range(topk):
            branch = branches[b * topk + t]
            assert torch.equal(branch[:length], table[row, :length])
            own = room.view(2, topk, steps)[b, t]
            assert torch.equal(branch[length : length + steps], own.int())


def test_kv_rows_are_copied_even_where_source_and_target_overlap() -> None:
    layers = [torch.randn(8, 2, 3), torch.randn(8, 5)]
    before = [layer.clone() for layer in layers]
    addresses = torch.tensor([layer.data_ptr() for layer in layers])
    row_bytes = torch.tensor([layer[0].numel() * 4 for layer in layers])
    target, source = torch.tensor([1, 2, 3]), torch.tensor([0, 1, 2])
    bookkeeping.copy_all_layer_kv_cache_cpu(addresses, row_bytes, target, source)
    for layer, old in zip(layers, before, strict=True):
        assert torch.equal(layer[[1, 2, 3]], old[[0, 1, 2]])
        assert torch.equal(layer[[0, 4, 5, 6, 7]], old[[0, 4, 5, 6, 7]])


def test_accepted_tokens_are_gathered_and_inputs_rotated() -> None:
    bonus, slots = torch.zeros(2, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)
    tokens = torch.tensor([[5, 6, 0], [7, 8, 9]])
    bookkeeping.fill_bonus_tokens_cpu(tokens, torch.tensor([2, 3]), bonus, 3)
    assert bonus.tolist() == [6, 9]
    index = torch.tensor([[0, 2, -1], [3, -1, -1]])
    bookkeeping.fill_accept_out_cache_loc_cpu(index, torch.arange(10, 16), slots)
    assert slots.tolist() == [10, 12, 13, 0]

    ids, new = torch.tensor([1, 2, 3, 4, 5]), torch.tensor([[8], [9]])
    starts, lengths = torch.tensor([0, 3]), torch.tensor([3, 2])
    bookkeeping.rotate_input_ids_cpu(ids, starts, lengths, new)
    assert ids.tolist() == [2, 3, 8, 5, 9]
    bookkeeping.rotate_input_ids_cpu(ids, starts, lengths, new, torch.tensor([1, 3]))
    assert ids.tolist() == [3, 8, 8, 9, 9]


@pytest.mark.parametrize("page", [1, 4])
def test_pages_are_filled_before_new_ones_are_taken(page: int) -> None:
    rng = random.Random(page)
    for _ in range(50):
        free = torch.tensor(rng.sample(range(100), 60))
        prefix = torch.tensor([rng.randint(0, 9) for _ in range(4)])
        length = prefix + torch.tensor([rng.randint(1, 9) for _ in range(4)])
        # The last slot of each prefix lies in a page of its own, above every free one.
        last = torch.tensor([(200 + b) * page + (n - 1) % page for b, n in enumerate(prefix)])
        expected, unused = [], free.tolist()
        for n, end, slot in zip(prefix.tolist(), length.tolist(), last.tolist(), strict=True):
            for position in range(n, end):
                slot = unused.pop(0) * page if position % page == 0 else slot + 1
                expected.append(slot)
        out = torch.full((len(expected),), -1)
        paging.Launcher(paging.alloc_extend)[(4,)](prefix, length, last, free, out, 4, page)
        assert out.tolist() == expected
        one, whole = torch.full((4,), -1), torch.full((4,), -1)
        paging.alloc_decode(prefix + 1, last, free, one, 4, page)
        paging.alloc_extend(prefix, prefix + 1, last, free, whole, 4, page)
        assert torch.equal(one, whole)


def test_too_few_free_pages_are_left_to_the_caller() -> None:
    out, free = torch.full((8,), -1), torch.tensor([5])
    last = torch.tensor([-1])
    paging.alloc_extend(torch.tensor([0]), torch.tensor([8]), last, free, out, 1, 4)
    assert out.tolist() == [-1] * 8


# ---- never over a real sgl_kernel ---------------------------------------------------------------


def real_looking_kernel(folder: Path) -> Path:
    package = folder / "sgl_kernel"
    package.mkdir()
    (package / "__init__.py").write_text("")
    return folder


def test_stand_in_refuses_to_shadow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = SITE / "sgl_kernel"
    refuse_to_shadow(stand_in)
    monkeypatch.syspath_prepend(str(SITE))
    refuse_to_shadow(stand_in)  # itself on the path is no other
    monkeypatch.setattr(sys, "path", [*sys.path, str(real_looking_kernel(tmp_path))])
    with pytest.raises(RuntimeError, match="refuses to shadow it"):
        refuse_to_shadow(stand_in)


def test_import_refuses_to_shadow_in_a_process_of_its_own(tmp_path: Path) -> None:
    program = "import torch, sgl_kernel; print(torch.ops.sgl_kernel.decode_attention_cpu.__name__)"
    assert run_python(program, SITE).stdout.strip() == "decode_attention_cpu"
    refused = run_python(program, SITE, real_looking_kernel(tmp_path))
    assert refused.returncode != 0
    assert "RuntimeError: a real sgl_kernel is installed" in refused.stderr


def test_import_stubs_answer_for_triton_but_not_to_probes() -> None:
    program = (
        "from torch.utils._triton import has_triton_package\n"
        "there = has_triton_package()\n"
        "import triton, triton.language as tl, torchvision\n"
        "@triton.jit\n"
        "def kernel(x: tl.constexpr): return x\n"
        "print(kernel(3), triton.cdiv(7, 2), there)\n"
    )
    assert run_python(program, SITE).stdout.split() == ["3", "4", "False"]


def run_python(program: str, *path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, text=True, capture_output=True, timeout=120)
