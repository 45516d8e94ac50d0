"""Learn output lengths from requests that finished long ago, before a worker starts.

    python -m laps_sglang.lengths --tokenizer MODEL --model lengths.npz requests.jsonl more.jsonl.gz

Each line is an object with `prompt` (a text) or `messages` (a chat), and `output` (a text) or
`output_tokens` (a number); perhaps `tenant` and `max_tokens`. They are learnt from in this order,
as a worker does; a file that is there is added to, so learn from each request once. Needs the
extra `lengths` and transformers, which SGLang has.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from laps.engine.classes import class_of
from laps.engine.types import Hints
from laps_sglang.lengths.features import Features, features
from laps_sglang.lengths.prompts import ends
from laps_sglang.lengths.state import LengthModelError, check, load, new_state, save


class RowError(ValueError):
    """What is to be learnt from is not there, or is no finished request; the message says what."""


def main(arguments: list[str] | None = None) -> None:
    """Learn from the files on the command line."""
    parser = argparse.ArgumentParser(prog="laps_sglang.lengths", description=__doc__)
    parser.add_argument("--tokenizer", required=True, help="a folder with tokenizer.json")
    parser.add_argument(
        "--model", type=Path, required=True, help="file of what is learnt, as --laps-length-model"
    )
    parser.add_argument("files", type=Path, nargs="+", help="JSON lines, plain or .gz")
    options = parser.parse_args(arguments)
    try:
        learn(options.tokenizer, options.model, options.files)
    except (LengthModelError, RowError, OSError) as error:
        sys.exit(f"laps_sglang.lengths: {error}")


def learn(tokenizer_path: str, model: Path, files: list[Path]) -> None:
    """Add what `files` teach to `model`. Raises LengthModelError, RowError, OSError."""
    check(model)
    if missing := [str(path) for path in files if not path.is_file()]:
        raise RowError(f"there is no file {', '.join(missing)}")
    if not (Path(tokenizer_path) / "tokenizer.json").is_file():
        raise RowError(f"there is no tokenizer.json in {tokenizer_path}")
    # Only now: who has no scikit-learn has been told what to do.
    from transformers import PreTrainedTokenizerFast

    from laps_sglang.lengths.learner import LengthLearner

    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_path)
    learner = LengthLearner(load(model) if model.exists() else new_state())
    for path in files:
        for request, output_tokens in finished_requests(path, tokenizer):
            learner.learn(request, output_tokens)
    state = learner.state
    save(state, model)
    print(
        f"{model}: learnt from {state.learnt:,} requests; of the newest, log lengths were off by "
        f"{state.error:.2f}, and by {state.error_of_mean:.2f} had their mean been said each time"
    )


def finished_requests(path: Path, tokenizer: Any) -> Iterator[tuple[Features, int]]:
    """Yield the features and the output length of each line. Raises RowError, OSError."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield _finished(json.loads(line), tokenizer)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise RowError(
                    f"{path}:{number} is no finished request, an object with prompt or messages, "
                    f"and output or output_tokens: {error!r}"
                ) from error


def _finished(row: dict[str, Any], tokenizer: Any) -> tuple[Features, int]:
    if "messages" in row:
        tokens = tokenizer.apply_chat_template(
            row["messages"], add_generation_prompt=True, return_dict=False
        )
    else:
        tokens = tokenizer.encode(row["prompt"])
    output_tokens = row.get("output_tokens")
    if output_tokens is None:
        output_tokens = len(tokenizer.encode(row["output"], add_special_tokens=False))
    if output_tokens < 1:
        raise ValueError(f"output_tokens is {output_tokens}")
    kind = class_of(Hints(tenant=row.get("tenant", "")), int(row.get("max_tokens", 0)))
    return features(np.array(ends(tokens)), len(tokens), kind), int(output_tokens)


if __name__ == "__main__":
    main()
