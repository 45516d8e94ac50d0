"""Tiny random Llamas, their drafts and their EAGLE heads: seeded, the same on every machine."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from testbed.hf_folder import Weights, llama_config, save_model, save_tokenizer

VOCAB, HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, POSITIONS = 1024, 128, 256, 4, 4, 2, 2048
BOS, EOS, PAD = "<s>", "</s>", "<pad>"
TINY_TEMPLATE = (
    "{{ '<s>' }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
EAGLE3_VOCAB = 512
# With the usual initial deviation (0.02) a random Llama repeats one token for ever: attention is
# uniform and the residual stream hardly moves.  With a large one the next token depends on all of
# the context, so much that no noisy copy agrees.  This lies between.  The end token's row is
# enlarged so that answers end of themselves, at varied lengths (about 5 to 300 tokens).
DEVIATION, EMBEDDING_DEVIATION, EOS_SCALE = 0.07, 1.0, 1.3


def build_target(out: Path) -> None:
    normal = _normal(seed=0)
    weights = {
        "model.embed_tokens.weight": normal(VOCAB, HIDDEN, deviation=EMBEDDING_DEVIATION),
        "model.norm.weight": torch.ones(HIDDEN),
        "lm_head.weight": normal(VOCAB, HIDDEN),
    }
    for i in range(LAYERS):
        weights |= _layer(f"model.layers.{i}", normal)
        weights[f"model.layers.{i}.input_layernorm.weight"] = torch.ones(HIDDEN)
    tokenizer = _tiny_tokenizer()
    weights["lm_head.weight"][tokenizer.token_to_id(EOS)] *= EOS_SCALE
    # SGLang's STANDALONE draft never sees the first token; one that says nothing is not missed.
    weights["model.embed_tokens.weight"][tokenizer.token_to_id(BOS)] = 0.0
    save_model(out, _tiny_config(), weights)
    save_tokenizer(out, tokenizer, (BOS, EOS, PAD), TINY_TEMPLATE, POSITIONS)


def build_draft(out: Path, target: Path, sigma: float) -> None:
    generator = torch.Generator().manual_seed(1)
    shutil.copytree(target, out, dirs_exist_ok=True)
    weights = load_file(target / "model.safetensors")
    for name, weight in weights.items():
        if weight.dim() == 2:
            noise = torch.randn(weight.shape, generator=generator)
            weights[name] = weight + sigma * weight.std() * noise
    save_file(weights, out / "model.safetensors", {"format": "pt"})


def build_eagle(out: Path, target: Path) -> None:
    normal = _normal(seed=2)
    weights = _layer("layers.0", normal) | {
        "fc.weight": normal(HIDDEN, 2 * HIDDEN),
        "fc.bias": torch.zeros(HIDDEN),
        "embed_tokens.weight": load_file(target / "model.safetensors")["model.embed_tokens.weight"],
    }
    save_model(
        out,
        _tiny_config() | {"architectures": ["LlamaForCausalLMEagle"], "num_hidden_layers": 1},
        weights,
    )


def build_eagle3(out: Path) -> None:
    normal = _normal(seed=3)
    weights = _layer("midlayer", normal, reads=2 * HIDDEN) | {
        "midlayer.hidden_norm.weight": torch.ones(HIDDEN),
        "midlayer.input_layernorm.weight": torch.ones(HIDDEN),
        "fc.weight": normal(HIDDEN, 3 * HIDDEN),
        "norm.weight": torch.ones(HIDDEN),
        "lm_head.weight": normal(EAGLE3_VOCAB, HIDDEN),
        # The draft's vocabulary is the target's first half: no offset, hence zeros.
        "d2t": torch.zeros(EAGLE3_VOCAB, dtype=torch.int64),
        "t2d": torch.arange(VOCAB) < EAGLE3_VOCAB,
    }
    config = _tiny_config() | {
        "architectures": ["LlamaForCausalLMEagle3"],
        "num_hidden_layers": 1,
        "draft_vocab_size": EAGLE3_VOCAB,
        # SGLang's default picks layers that a target of 4 layers does not have.
        "eagle_config": {"eagle_aux_hidden_state_layer_ids": [0, 1, 2]},
    }
    save_model(out, config, weights)


def _layer(prefix: str, normal: Callable[..., Tensor], reads: int = HIDDEN) -> Weights:
    """One Llama layer whose attention reads `reads` features; norms of ones."""
    head = HIDDEN // HEADS
    return {
        f"{prefix}.self_attn.q_proj.weight": normal(HIDDEN, reads),
        f"{prefix}.self_attn.k_proj.weight": normal(KV_HEADS * head, reads),
        f"{prefix}.self_attn.v_proj.weight": normal(KV_HEADS * head, reads),
        f"{prefix}.self_attn.o_proj.weight": normal(HIDDEN, HIDDEN),
        f"{prefix}.mlp.gate_proj.weight": normal(INNER, HIDDEN),
        f"{prefix}.mlp.up_proj.weight": normal(INNER, HIDDEN),
        f"{prefix}.mlp.down_proj.weight": normal(HIDDEN, INNER),
        f"{prefix}.post_attention_layernorm.weight": torch.ones(HIDDEN),
    }


def _normal(seed: int) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, deviation: float = DEVIATION) -> Tensor:
        return torch.randn(shape, generator=generator) * deviation

    return normal


def _tiny_tokenizer() -> Tokenizer:
    """Byte-level BPE over invented words, so that every machine trains the same one."""
    rng = random.Random(0)
    syllables = [c + v for c in "bdfghklmnprstvwz" for v in ("a", "e", "i", "o", "u", "ar", "en")]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(1000)]
    text = [" ".join(rng.choices(words, k=12)) + "." for _ in range(2000)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    roles = ["<|system|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(  # type: ignore[no-untyped-call]
        vocab_size=VOCAB,
        special_tokens=[PAD, BOS, EOS, *roles],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    return tokenizer


def _tiny_config() -> dict[str, Any]:
    return llama_config(
        VOCAB, HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, POSITIONS, 10000.0, tied=False
    )
