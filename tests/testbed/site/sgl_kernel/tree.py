"""Draft trees: building what verification needs, and verifying greedily.

A tree has `n` nodes a request: node 0 is the last committed token, the others are drafts, a parent
always before its children.  It is linked by `retrive_next_token` (first child) and
`retrive_next_sibling`, -1 for none; `retrive_index` numbers the nodes of the whole batch (the
spelling is SGLang's).  Semantics: sgl-kernel/csrc/speculative/eagle_utils.cu.
"""

from __future__ import annotations

import torch
from torch import Tensor

FULL_MASK, QLEN_ONLY = 0, 1  # SGLang's TreeMaskMode; its third, bit-packed, is for GPUs


def build_tree_kernel_efficient_cpu(
    parent_list: Tensor,
    selected_index: Tensor,
    verified_seq_len: Tensor,
    tree_mask: Tensor,
    positions: Tensor,
    retrive_index: Tensor,
    retrive_next_token: Tensor,
    retrive_next_sibling: Tensor,
    topk: int,
    depth: int,
    draft_token_num: int,
    tree_mask_mode: int,
) -> None:
    """Lay out the trees that the draft's beam search chose.

    The search numbers its candidates: `topk` at the first step, then `topk * topk` a step, `topk`
    for each of the beams it went on with.  `selected_index` [bs, n - 1] are the numbers chosen, in
    ascending order; `parent_list` [bs, ...] gives, for the group `number // topk`, the number of
    the candidate that group continues (group 0 continues the root).

    Written in place: the links [bs, n], `positions` [bs * n] (committed length plus depth in the
    tree), and `tree_mask`, true where a node (row) may attend to a position: itself, its ancestors
    and, in FULL_MASK only, the committed prefix, whose columns come first.
    """
    if tree_mask_mode not in (FULL_MASK, QLEN_ONLY):
        raise NotImplementedError(f"tree mask mode {tree_mask_mode} has no CPU form")
    n, written = draft_token_num, 0
    batch = zip(
        selected_index.tolist(), parent_list.tolist(), verified_seq_len.tolist(), strict=True
    )
    for b, (selected, groups, length) in enumerate(batch):
        parents = _parents(selected[: n - 1], groups, topk)
        visible = torch.zeros(n, n, dtype=torch.bool)
        depths = [0] * n
        visible[0, 0] = True
        for node in range(1, n):
            visible[node] = visible[max(parents[node], 0)]
            visible[node, node] = True
            depths[node] = depths[max(parents[node], 0)] + 1
        _link(b, parents, retrive_index, retrive_next_token, retrive_next_sibling)
        positions[b * n : (b + 1) * n] = torch.tensor(depths) + length
        if tree_mask_mode == FULL_MASK:
            visible = torch.cat([torch.ones(n, length, dtype=torch.bool), visible], dim=1)
        tree_mask[written : written + visible.numel()] = visible.flatten()
        written += visible.numel()


def reconstruct_indices_from_tree_mask(
    tree_mask: Tensor,
    verified_seq_len: Tensor,
    positions: Tensor,
    retrive_index: Tensor,
    retrive_next_token: Tensor,
    retrive_next_sibling: Tensor,
    batch_size: int,
    draft_token_num: int,
) -> None:
    """The same links and positions from a mask [bs, n, n] alone, as NGRAM's matcher gives it.

    A node's parent is the latest node before it that it may attend to.
    """
    n = draft_token_num
    ancestors = tree_mask.view(batch_size, n, n).bool().tril(diagonal=-1)
    depths = ancestors.sum(dim=2) + verified_seq_len.view(-1, 1)
    positions.copy_(depths.view_as(positions))
    for b in range(batch_size):
        parents = [
            max((j for j, seen in enumerate(row) if seen), default=-1)
            for row in ancestors[b].tolist()
        ]
        _link(b, parents, retrive_index, retrive_next_token, retrive_next_sibling)


def verify_tree_greedy_cpu(
    predicts: Tensor,
    accept_index: Tensor,
    accept_token_num: Tensor,
    candidates: Tensor,
    retrive_index: Tensor,
    retrive_next_token: Tensor,
    retrive_next_sibling: Tensor,
    target_predict: Tensor,
) -> None:
    """Walk every tree from its root along the drafts that the target itself would have chosen.

    `candidates` [bs, n] are the nodes' tokens, `target_predict` (bs * n, any shape) the target's
    choice after each node.  Written: `accept_index` [bs, steps + 1], the batch-wide numbers of the
    nodes walked (the root first); `accept_token_num` [bs], how many of them are drafts; and
    `predicts` [bs * n], at each node walked, the target's choice (after the last: the bonus token).
    """
    most = accept_index.shape[1] - 1
    tokens, numbers = candidates.tolist(), retrive_index.tolist()
    children, siblings = retrive_next_token.tolist(), retrive_next_sibling.tolist()
    chosen = target_predict.flatten().tolist()
    for b, number in enumerate(numbers):
        node, walked = 0, [number[0]]
        while len(walked) <= most:
            node = children[b][node]
            while node != -1 and tokens[b][node] != chosen[walked[-1]]:
                node = siblings[b][node]
            if node == -1:
                break
            walked.append(number[node])
        accept_index[b, : len(walked)] = torch.tensor(walked)
        accept_token_num[b] = len(walked) - 1
        predicts[walked] = torch.tensor([chosen[i] for i in walked], dtype=predicts.dtype)


def _parents(selected: list[int], groups: list[int], topk: int) -> list[int]:
    """Parent node of every node; -1 for the root, and for a draft whose own parent was not chosen
    (equal scores can do that): it is in no list of children and so never accepted."""
    node_of: dict[int, int] = {}
    for node, number in enumerate(selected, start=1):
        node_of.setdefault(number, node)
    parents = [-1]
    for number in selected:
        group = number // topk
        parents.append(0 if group == 0 else node_of.get(groups[group], -1))
    return parents


def _link(b: int, parents: list[int], index: Tensor, child: Tensor, sibling: Tensor) -> None:
    """Write the links of tree `b`, children in ascending order."""
    n = len(parents)
    children, siblings = [-1] * n, [-1] * n
    for node in range(n - 1, 0, -1):
        parent = parents[node]
        if parent >= 0:
            siblings[node], children[parent] = children[parent], node
    index[b] = torch.arange(b * n, (b + 1) * n)
    child[b] = torch.tensor(children)
    sibling[b] = torch.tensor(siblings)
