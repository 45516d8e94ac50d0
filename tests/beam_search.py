"""What a draft's beam search hands to the tree operators, made at random, as plain paths."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

Path_ = tuple[int, ...]  # a node as the candidate numbers on the way to it; () is the root


@dataclass
class Beam:
    """A beam search's outcome: `groups` as SGLang's parent_list; the nodes chosen, root first."""

    topk: int
    groups: list[int]
    nodes: list[Path_]

    def children(self, node: int) -> list[int]:
        path = self.nodes[node]
        return [i for i, other in enumerate(self.nodes) if other and other[:-1] == path]


def random_beam(rng: random.Random, topk: int, steps: int, n: int) -> Beam:
    """Search with random scores: as SGLang numbers it, group g of `topk` candidates continues
    candidate groups[g]; then choose n - 1 candidates at random, ancestors first."""
    groups = [-1]
    paths: dict[int, Path_] = {i: (i,) for i in range(topk)}
    frontier = list(range(topk))
    for step in range(1, steps):
        beams = frontier if step == 1 else sorted(rng.sample(frontier, topk))
        frontier = []
        for beam in beams:
            first = len(groups) * topk
            groups.append(beam)
            for number in range(first, first + topk):
                paths[number] = (*paths[beam], number)
                frontier.append(number)
    chosen: set[Path_] = set()
    while len(chosen) < n - 1:
        open_ = [p for p in paths.values() if p not in chosen and (p[:-1] in chosen or len(p) == 1)]
        chosen.add(rng.choice(open_))
    return Beam(topk, groups, [(), *sorted(chosen, key=lambda path: path[-1])])


def expected_mask(beam: Beam) -> Tensor:
    """A node sees its ancestors and itself: those whose path begins its own."""
    return torch.tensor([[a[: len(b)] == b for b in beam.nodes] for a in beam.nodes])
