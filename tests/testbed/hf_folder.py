"""Writing a model as a Hugging Face folder, without transformers (whose import takes seconds)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

Weights = dict[str, Tensor]


def llama_config(
    vocab: int,
    hidden: int,
    inner: int,
    layers: int,
    heads: int,
    kv_heads: int,
    positions: int,
    rope_theta: float,
    tied: bool,
) -> dict[str, Any]:
    """A Llama `config.json`; both models' begin and end tokens have ids 1 and 2."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": hidden // heads,
        "max_position_embeddings": positions,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": rope_theta},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": "bfloat16" if tied else "float32",
    }


def save_model(out: Path, config: dict[str, Any], weights: Weights) -> None:
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(weights, out / "model.safetensors", {"format": "pt"})


def save_tokenizer(
    out: Path,
    tokenizer: Tokenizer,
    special: tuple[str, str, str],
    chat_template: str,
    positions: int,
) -> None:
    """`special`: the begin, end and padding tokens."""
    begin, end, padding = special
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": begin,
        "eos_token": end,
        "pad_token": padding,
        "chat_template": chat_template,
        "model_max_length": positions,
        "clean_up_tokenization_spaces": False,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
