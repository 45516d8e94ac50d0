"""Models with heads of zeros behind their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gpu.divisible import make_divisible
from testbed import tiny


def test_a_padded_model_computes_what_it_computed_before(tmp_path: Path) -> None:
    source = tmp_path / "tiny"
    source.mkdir()
    tiny.build_target(source)
    made = make_divisible(source, tmp_path / "made", parts=4)
    config = json.loads((made / "config.json").read_text())
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (8, 4)
    assert config["head_dim"] == tiny.HIDDEN // tiny.HEADS
    assert {path.name for path in made.iterdir()} == {path.name for path in source.iterdir()}

    from transformers import LlamaForCausalLM

    tokens = torch.arange(3, 40)[None]
    with torch.inference_mode():
        logits = [
            LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)(tokens).logits
            for folder in (source, made)
        ]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)


def test_heads_that_divide_are_left_as_they_are(tmp_path: Path) -> None:
    source = tmp_path / "tiny"
    source.mkdir()
    tiny.build_target(source)
    made = make_divisible(source, tmp_path / "made", parts=2)
    before, after = (load_file(folder / "model.safetensors") for folder in (source, made))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_is_no_llama_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="no Llama"):
        make_divisible(tmp_path, tmp_path / "made", parts=2)
