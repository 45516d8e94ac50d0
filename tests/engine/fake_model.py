"""A fake model worker with EAGLE-v2 semantics that checks every KV slot it is given.

It stands where the model would run: everything around it (batches, allocators, radix cache,
FutureMap, result processing) is SGLang's own. Its "KV cache" stores token ids, its next token is a
hash of the whole prefix, and it reads the prefix back through SGLang's page table: one slot given
away too early or one row out of place, and either an assertion fails or the text differs from
`reference`.
"""

from __future__ import annotations

import random
import types
from collections.abc import Iterable, Sequence
from typing import Any

import torch

VOCABULARY = 997
DRAFTS = 3
STRIDE = DRAFTS + 1
"""Tokens verified a round: the drafts and the bonus token."""
_REJECTED = -99


def next_token(prefix: Iterable[int]) -> int:
    """Return the token that follows `prefix`."""
    state = length = 0
    for token in prefix:
        state = (state * 31 + token + 1) % 1000003
        length += 1
    return (state + length) % VOCABULARY


def reference(prompt: Sequence[int], tokens: int) -> list[int]:
    """Return the `tokens` tokens that any correct run generates after `prompt`."""
    text = list(prompt)
    for _ in range(tokens):
        text.append(next_token(text))
    return text[len(prompt) :]


class FakeModel:
    """Stands for the model worker and its draft worker; see the module's docstring."""

    def __init__(self, scheduler: Any, kv_tokens: int, speculative: bool, seed: int) -> None:
        self._scheduler = scheduler
        self._speculative = speculative
        self._kv = torch.full((kv_tokens + 64,), -7, dtype=torch.int64)
        self._random = random.Random(seed)
        self.war_fastpath_runner = types.SimpleNamespace(war_fastpath_read_done_event=None)
        self.model_runner = types.SimpleNamespace(prefill_aware_swa=False, attn_backend=None)
        self.batches: list[tuple[str, list[str]]] = []
        """(forward mode, request ids) of every batch launched."""

    def on_verify_complete_cpu(self, *args: Any, **kw: Any) -> None:
        """SGLang feeds its adaptive speculation here."""

    def forward_batch_generation(self, batch: Any, on_publish: Any = None, **kw: Any) -> Any:
        """Run one batch, as `EAGLEWorkerV2.forward_batch_generation` does."""
        lengths, slots = batch.seq_lens.tolist(), batch.req_pool_indices.tolist()
        self.batches.append((batch.forward_mode.name, [req.rid for req in batch.reqs]))
        rows = (len(lengths), len(slots), len(batch.reqs), len(batch.sampling_info.temperatures))
        assert len(set(rows)) == 1, f"rows differ: {rows}"
        for req, slot in zip(batch.reqs, slots, strict=True):
            # The pool index moved from Req to Req.kv between the supported versions.
            own = getattr(req, "req_pool_idx", None)
            assert slot == (req.kv.req_pool_idx if own is None else own), f"{req.rid} moved"
        if batch.forward_mode.is_extend():
            return self._extend(batch, lengths, slots, on_publish)
        if self._speculative:
            return self._verify(batch, lengths, slots, on_publish)
        self._kv[batch.out_cache_loc] = batch.input_ids.long()
        tokens = [next_token(self._prefix(s, n)) for s, n in zip(slots, lengths, strict=True)]
        return batch_result(next_token_ids=_sample(tokens, batch.sampling_info))

    def _prefix(self, slot: int, length: int) -> list[int]:
        table = self._scheduler.req_to_token_pool.req_to_token
        prefix: list[int] = self._kv[table[slot, :length].long()].tolist()
        return prefix

    def _extend(self, batch: Any, lengths: list[int], slots: list[int], publish: Any) -> Any:
        self._kv[batch.out_cache_loc] = batch.input_ids.long()
        tokens = []
        for req, length, slot in zip(batch.reqs, lengths, slots, strict=True):
            prefix = self._prefix(slot, length)
            text = [*req.origin_input_ids, *req.output_ids][:length]
            assert prefix == text, f"{req.rid}: the KV cache holds another prefix"
            tokens.append(next_token(prefix))
        bonus = torch.tensor(tokens, dtype=torch.int64)
        if not self._speculative:
            return batch_result(next_token_ids=bonus, can_run_cuda_graph=False)
        if publish:
            publish(batch.seq_lens)
        return batch_result(
            next_token_ids=bonus,
            can_run_cuda_graph=False,
            new_seq_lens=batch.seq_lens,
            next_draft_input=draft_input(bonus, batch.seq_lens),
        )

    def _verify(self, batch: Any, lengths: list[int], slots: list[int], publish: Any) -> Any:
        draft = batch.spec_info
        bonus = draft.bonus_tokens.long()
        # What `draft_input` relayed for these rows a round ago must have come back to them.
        assert torch.equal(draft.topk_index.view(-1), bonus * 7 + batch.seq_lens), "rows mixed up"
        assert torch.equal(draft.hidden_states[:, 0].long(), bonus), "hidden states mixed up"
        table = self._scheduler.req_to_token_pool.req_to_token
        accepted, tokens, last = [], [], []
        for req, length, slot, token in zip(
            batch.reqs, lengths, slots, bonus.tolist(), strict=True
        ):
            assert req.kv.kv_allocated_len >= length + STRIDE, f"{req.rid}: no room for drafts"
            text = [*self._prefix(slot, length), token]
            self._kv[int(table[slot, length])] = token
            count = 1 + self._random.randrange(STRIDE)
            for index in range(count):
                text.append(next_token(text))
                if index < count - 1:
                    self._kv[int(table[slot, length + 1 + index])] = text[-1]
            for index in range(count, STRIDE):
                self._kv[int(table[slot, length + index])] = _REJECTED
            accepted.append(count)
            last.append(text[-1])
            tokens += text[-count:] + [0] * (STRIDE - count)
        accept_lens = torch.tensor(accepted, dtype=torch.int32)
        new_lengths = batch.seq_lens + accept_lens
        if publish:
            publish(new_lengths)
        return batch_result(
            next_token_ids=torch.tensor(tokens, dtype=torch.int64),
            accept_lens=accept_lens,
            new_seq_lens=new_lengths,
            speculative_num_draft_tokens=STRIDE,
            next_draft_input=draft_input(torch.tensor(last, dtype=torch.int64), new_lengths),
        )


def _sample(tokens: Sequence[int], info: Any) -> torch.Tensor:
    """Return `tokens`, or what SGLang's penalties make of them where a request has any.

    Penalised rows choose among few tokens, so that a token counted once too often or too rarely
    changes the text.
    """
    chosen = torch.tensor(tokens, dtype=torch.int64)
    if info.acc_additive_penalties is None and not (
        info.penalizer_orchestrator and info.penalizer_orchestrator.is_required
    ):
        return chosen
    rows = torch.arange(len(tokens))
    logits = torch.zeros(len(tokens), VOCABULARY)
    for rank in range(5):
        logits[rows, (chosen + 7 * rank) % 11] = 2.0 - 0.05 * rank
    before = logits.clone()
    info.apply_logits_bias(logits)
    penalised = (logits != before).any(dim=1)
    return torch.where(penalised, logits.argmax(dim=1), chosen)


def batch_result(**fields: Any) -> Any:
    from sglang.srt.layers.logits_processor import LogitsProcessorOutput
    from sglang.srt.managers.utils import GenerationBatchResult

    return GenerationBatchResult(
        logits_output=LogitsProcessorOutput(next_token_logits=None), **fields
    )


def draft_input(bonus: torch.Tensor, lengths: torch.Tensor) -> Any:
    """Return the draft state of the next round, derived from its row so that a mix-up shows."""
    from sglang.srt.speculative.eagle_info import EagleDraftInput

    return EagleDraftInput(
        topk_p=torch.ones(len(bonus), 1),
        topk_index=(bonus * 7 + lengths).view(-1, 1),
        hidden_states=bonus.float().view(-1, 1).repeat(1, 3),
        bonus_tokens=bonus,
        num_tokens_per_req=1,
        num_tokens_for_logprob_per_req=1,
    )
