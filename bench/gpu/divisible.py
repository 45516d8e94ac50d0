"""Models whose attention heads can be shared out among GPUs, made of ones whose heads can not.

SGLang's tensor parallelism needs a number of heads that divides. Heads of zeros are put behind
those that a Llama has, with the groups that share keys and values kept whole: they attend to
nothing and add nothing, so the model computes what it computed before.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"


def make_divisible(source: Path, made: Path, parts: int) -> Path:
    """Write `source` into the new folder `made`, with heads that divide by `parts`; return it.

    Raises ValueError for a model that is no Llama in one file.
    """
    config = json.loads((source / "config.json").read_text())
    if config["model_type"] != "llama" or not (source / WEIGHTS).exists():
        raise ValueError(f"{source} is no Llama in one {WEIGHTS}: its heads cannot be padded")
    heads, shared = config["num_attention_heads"], config["num_key_value_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    more = -shared % parts
    rows = {"q_proj": more * heads // shared * size, "k_proj": more * size, "v_proj": more * size}
    weights = load_file(source / WEIGHTS)
    for name, weight in weights.items():
        projection = name.split(".")[-2]
        if projection in rows:
            zeros = weight.new_zeros(rows[projection], *weight.shape[1:])
            weights[name] = torch.cat((weight, zeros))
        elif projection == "o_proj" and weight.dim() == 2:
            zeros = weight.new_zeros(weight.shape[0], rows["q_proj"])
            weights[name] = torch.cat((weight, zeros), dim=1)
    shutil.copytree(source, made, ignore=shutil.ignore_patterns(WEIGHTS))
    config |= {
        "num_attention_heads": heads + more * heads // shared,
        "num_key_value_heads": shared + more,
        "head_dim": size,
    }
    (made / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(weights, made / WEIGHTS, {"format": "pt"})
    return made
