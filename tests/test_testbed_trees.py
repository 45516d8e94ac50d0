"""The CPU test bed's draft trees, built and verified, against brute force over paths."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from beam_search import Beam, expected_mask, random_beam
from testbed.site.sgl_kernel import tree


@dataclass
class Built:
    mask: Tensor
    positions: Tensor
    index: Tensor
    child: Tensor
    sibling: Tensor

    @classmethod
    def empty(cls, bs: int, n: int, mask: Tensor) -> Built:
        links = (torch.full((bs, n), 99, dtype=torch.int64) for _ in range(3))
        return cls(mask, torch.zeros(bs * n, dtype=torch.int64), *links)

    def children(self, b: int, node: int) -> list[int]:
        found, at = [], int(self.child[b, node])
        while at != -1:
            found.append(at)
            at = int(self.sibling[b, at])
        return found


def build(beams: Sequence[Beam], lengths: list[int], mode: int = tree.QLEN_ONLY) -> Built:
    bs, n = len(beams), len(beams[0].nodes)
    columns = [n if mode == tree.QLEN_ONLY else length + n for length in lengths]
    built = Built.empty(bs, n, mask=torch.zeros(n * sum(columns), dtype=torch.bool))
    tree.build_tree_kernel_efficient_cpu(
        torch.tensor([beam.groups for beam in beams]),
        torch.tensor([[path[-1] for path in beam.nodes[1:]] for beam in beams]),
        torch.tensor(lengths),
        built.mask,
        built.positions,
        built.index,
        built.child,
        built.sibling,
        beams[0].topk,
        4,
        n,
        mode,
    )
    return built


SHAPES = [(1, 3, 4), (2, 3, 6), (4, 3, 8), (4, 5, 16), (3, 2, 10)]  # topk, steps, nodes


@pytest.mark.parametrize(("topk", "steps", "n"), SHAPES)
def test_tree_is_laid_out_as_the_beam_search_chose(topk: int, steps: int, n: int) -> None:
    rng = random.Random(n)
    for _ in range(20):
        beams = [random_beam(rng, topk, steps, n) for _ in range(3)]
        lengths = [rng.randint(0, 9) for _ in beams]
        built, full = build(beams, lengths), build(beams, lengths, tree.FULL_MASK)
        assert torch.equal(built.index, torch.arange(3 * n).view(3, n))
        at = 0
        for b, (beam, length) in enumerate(zip(beams, lengths, strict=True)):
            mask = expected_mask(beam)
            assert torch.equal(built.mask.view(3, n, n)[b], mask)
            wide = full.mask[at : at + n * (length + n)].view(n, length + n)
            at += wide.numel()
            assert wide[:, :length].all()
            assert torch.equal(wide[:, length:], mask)
            depths = [length + len(path) for path in beam.nodes]
            assert built.positions[b * n : (b + 1) * n].tolist() == depths
            for node in range(n):
                assert built.children(b, node) == beam.children(node)


@pytest.mark.parametrize(("topk", "steps", "n"), SHAPES)
def test_links_are_recovered_from_the_mask_alone(topk: int, steps: int, n: int) -> None:
    rng = random.Random(n)
    beams = [random_beam(rng, topk, steps, n) for _ in range(3)]
    built = build(beams, [5, 0, 7])
    again = Built.empty(3, n, mask=built.mask)
    tree.reconstruct_indices_from_tree_mask(
        built.mask,
        torch.tensor([5, 0, 7]),
        again.positions,
        again.index,
        again.child,
        again.sibling,
        3,
        n,
    )
    for name in ("positions", "index", "child", "sibling"):
        assert torch.equal(getattr(again, name), getattr(built, name)), name


@pytest.mark.parametrize(("topk", "steps", "n"), SHAPES)
def test_verification_walks_where_the_target_would_go(topk: int, steps: int, n: int) -> None:
    rng = random.Random(n)
    accepted = []
    for _ in range(40):
        beams = [random_beam(rng, topk, steps, n) for _ in range(2)]
        built = build(beams, [3, 8])
        tokens = torch.tensor([[rng.randrange(2) for _ in range(n)] for _ in beams])
        choice = torch.tensor([[rng.randrange(2) for _ in range(n)] for _ in beams])
        predicts = torch.full((2 * n,), -7, dtype=torch.int32)
        index = torch.full((2, steps + 1), -1, dtype=torch.int32)
        count = torch.zeros(2, dtype=torch.int32)
        tree.verify_tree_greedy_cpu(
            predicts, index, count, tokens, built.index, built.child, built.sibling, choice
        )
        for b, beam in enumerate(beams):
            walk = [0]
            while True:
                wanted = int(choice[b, walk[-1]])
                good = [c for c in beam.children(walk[-1]) if int(tokens[b, c]) == wanted]
                if not good:
                    break
                walk.append(good[0])
            padding = [-1] * (steps + 1 - len(walk))
            assert index[b].tolist() == [b * n + node for node in walk] + padding
            assert int(count[b]) == len(walk) - 1
            for node in range(n):
                expected = int(choice[b, node]) if node in walk else -7
                assert int(predicts[b * n + node]) == expected
            accepted.append(len(walk) - 1)
    assert min(accepted) == 0  # the cases cover none and several
    assert max(accepted) > 1


def test_draft_whose_parent_was_not_chosen_is_never_accepted() -> None:
    beam = Beam(2, [-1, 0, 1], [(), (0,), (1, 4)])  # candidate 4 continues 1, which is missing
    built = build([beam], [3])
    assert built.children(0, 0) == [1]
    assert built.children(0, 1) == []
    assert built.mask.view(3, 3)[2].tolist() == [True, False, True]
