"""How well lengths are predicted from prompts, by data set: predict, then learn, as a worker does.

    PYTHONPATH=tests:bench python -m estimators.prompts --tokenizer .models/smollm2-135m \\
        --prompts eval.jsonl --references dolly.jsonl.gz gsm8k.jsonl.gz mbpp.jsonl.gz

`--prompts` are those of `bench/results/gpu/acceptance-*.npz` (`gpu.record`), whose lengths are of a
model's own answers. `--references` are lines with a `reference` answer beside the `prompt`. Takes
scikit-learn and transformers. Errors go into bench/results/prompts.json, and how predictions go
with lengths into bench/sim/data/prompts-*.json, for `sim.predictions`: of a prompt nothing is kept.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import kendalltau
from transformers import AutoTokenizer

from gpu.prompts import read_prompts
from gpu.record import MAX_TOKENS, SEED
from laps.engine.predictor import ConditionalMean
from laps_sglang.lengths.features import features
from laps_sglang.lengths.learner import ENOUGH, LengthLearner
from laps_sglang.lengths.prompts import ends
from laps_sglang.lengths.state import new_state
from sim.data.derive import classes, write

RESULTS = Path(__file__).parents[1] / "results"
RECORDED = RESULTS / "gpu" / "acceptance-tree.npz"
AGAIN = RESULTS / "gpu" / "acceptance-chain.npz"
"""The same prompts, answered once more."""
LIMIT = 1 << 20
"""Above any reference answer."""
LEARNT = "learnt from prompts"
CLASSES = 20
"""Equal shares of the requests, by predicted length, in what the simulator draws from."""
SAME = 0.99
"""Share of the prompts that must have as many tokens as was recorded: those of SGLang's template
that end in white space have one less."""

Lengths = NDArray[np.float64]


@dataclass(frozen=True)
class Request:
    """One that was answered."""

    source: str
    tokens: list[int]
    output_tokens: int


def main() -> None:
    parser = argparse.ArgumentParser(prog="estimators.prompts", description=__doc__)
    parser.add_argument("--tokenizer", required=True, help="folder of the model")
    parser.add_argument("--prompts", type=Path, nargs="+", required=True)
    parser.add_argument("--references", type=Path, nargs="+", required=True)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    again = np.load(AGAIN)["output_tokens"]
    answers = {
        "smollm2": (recorded(tokenizer, options.prompts), MAX_TOKENS, {"another answer": again}),
        "references": (references(tokenizer, options.references), LIMIT, {}),
    }
    results = {}
    for name, (requests, limit, known) in answers.items():
        lengths = np.array([request.output_tokens for request in requests])
        predicted = {**predictions(requests, limit), **known}
        results[name] = errors(requests, lengths, predicted)
        show(name, results[name])
        edges = np.quantile(predicted[LEARNT][ENOUGH:], np.arange(1, CLASSES) / CLASSES)
        kinds = np.searchsorted(edges, predicted[LEARNT][ENOUGH:])
        write(f"prompts-{name}", classes(lengths[ENOUGH:], kinds))
    (RESULTS / "prompts.json").write_text(json.dumps(results, indent=1) + "\n")


def recorded(tokenizer: Any, paths: Sequence[Path]) -> list[Request]:
    """Return the prompts with the lengths that were recorded, in that order."""
    record = np.load(RECORDED)
    prompts = read_prompts(paths, SEED)
    tokens = [as_chat(tokenizer, prompt.text) for prompt in prompts]
    counts = record["prompt_tokens"]
    if len(tokens) != len(counts) or np.mean([*map(len, tokens)] == counts) < SAME:
        sys.exit(f"{', '.join(map(str, paths))} are not the prompts that {RECORDED.name} is of")
    return [
        Request(prompt.source, ids, int(length))
        for prompt, ids, length in zip(prompts, tokens, record["output_tokens"], strict=True)
    ]


def references(tokenizer: Any, paths: Sequence[Path]) -> list[Request]:
    """Return the prompts with the lengths of the answers beside them, shuffled."""
    requests = []
    for path in paths:
        with gzip.open(path, "rt") as lines:
            for line in map(json.loads, lines):
                answer = tokenizer.encode(line["reference"])
                tokens = as_chat(tokenizer, line["prompt"])
                requests.append(Request(line["source"], tokens, len(answer)))
    random.Random(SEED).shuffle(requests)
    return requests


def as_chat(tokenizer: Any, prompt: str) -> list[int]:
    """Return the tokens of a chat of one message, as SGLang's OpenAI endpoint makes them."""
    chat = [{"role": "user", "content": prompt}]
    ids: list[int] = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=False
    )
    return ids


def predictions(requests: Sequence[Request], limit: int) -> dict[str, Lengths]:
    """Return what each predictor said before it learnt from the request."""
    said: dict[str, list[float]] = {LEARNT: [], "mean of all": [], "mean of the data set": []}
    learner, means = LengthLearner(new_state()), ConditionalMean()
    means_by_source = ConditionalMean()
    for request in track(requests, "learning"):
        row = features(np.array(ends(request.tokens)), len(request.tokens), limit.bit_length())
        said[LEARNT].append(float(np.exp(learner.predict([row])[0])))
        said["mean of all"].append(means.predict(0, limit, 0, "").tokens)
        by_source = means_by_source.predict(0, limit, 0, request.source)
        said["mean of the data set"].append(by_source.tokens)
        learner.learn(row, request.output_tokens)
        means.observe(request.output_tokens, "")
        means_by_source.observe(request.output_tokens, request.source)
    constant = np.median([request.output_tokens for request in requests])
    said["best constant"] = [float(constant)] * len(requests)
    return {name: np.array(lengths) for name, lengths in said.items()}


def errors(
    requests: Sequence[Request], lengths: NDArray[np.int64], predicted: dict[str, Lengths]
) -> dict[str, Any]:
    """Return by predictor and data set: mean |log(predicted / real)|, and Kendall's tau.

    The first requests, with which nobody would have predicted yet, are not judged.
    """
    sources = np.array([request.source for request in requests])
    judged = np.arange(len(requests)) >= ENOUGH

    def judge(of: Lengths, among: NDArray[np.bool_]) -> dict[str, float | None]:
        tau = kendalltau(of[among], lengths[among]).statistic
        off = np.abs(np.log(of[among] / np.maximum(lengths[among], 1)))
        return {"error": float(off.mean()), "tau": None if np.isnan(tau) else float(tau)}

    among = {"all": judged} | {name: judged & (sources == name) for name in sorted(set(sources))}
    return {
        "requests": {name: int(some.sum()) for name, some in among.items()},
        **{
            predictor: {name: judge(of, some) for name, some in among.items()}
            for predictor, of in predicted.items()
        },
    }


def show(name: str, result: dict[str, Any]) -> None:
    counts = result["requests"]
    title = f"{name}: |log(predicted / real)|, Kendall's tau"
    table = Table("", *(f"{source} ({count:,})" for source, count in counts.items()), title=title)
    for predictor, by_source in list(result.items())[1:]:
        table.add_row(predictor, *cells(by_source))
    Console().print(table)


def cells(by_source: dict[str, Any]) -> Iterator[str]:
    for figures in by_source.values():
        tau = "" if figures["tau"] is None else f", {figures['tau']:.2f}"
        yield f"{figures['error']:.2f}{tau}"


if __name__ == "__main__":
    main()
