"""Make the distributions in this folder from the data sets they describe.

    python -m sim.data.derive FOLDER

FOLDER holds the raw files, which are not part of this project (see README.md for their sources):
azure_llm_2023_conv.csv.gz, ssjf_bert_cls.csv.gz, dolly_instructions.jsonl.gz, mbpp.jsonl.gz and
gsm8k_train.jsonl.gz. No record of them is kept, only how often each value occurs.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
PROMPT_QUANTILES = 200
WINDOWS = 39
"""Shares of a trace, in order of time, whose lengths are told apart: of some 500 requests each."""
WINDOW_QUANTILES = 40
RANKS = 20
"""Equal shares of the requests, by true length, in the table of the class predictor."""

PAPER_LIKE = {"dolly": "dolly_instructions", "mbpp": "mbpp", "gsm8k": "gsm8k_train"}


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    raw = Path(sys.argv[1])
    rows = read_csv(raw / "azure_llm_2023_conv.csv.gz")
    prompts, outputs = column(rows, "input_tokens"), column(rows, "output_tokens")
    write("azure-conv", {**lengths(prompts, outputs), "windows": windows(outputs)})
    seconds = np.array([float(row["arrival_s"]) for row in rows]).astype(int)
    write("azure-conv-arrivals", {"per_second": np.bincount(seconds).tolist()})
    for name, file in PAPER_LIKE.items():
        with gzip.open(raw / f"{file}.jsonl.gz", "rt") as lines:
            records = [json.loads(line) for line in lines]
        prompts, outputs = column(records, "prompt_tokens"), column(records, "reference_tokens")
        write(name, lengths(prompts, outputs))
    rows = read_csv(raw / "ssjf_bert_cls.csv.gz")
    write("ssjf-bert", classes(column(rows, "output_tokens"), column(rows, "predicted_class")))


def read_csv(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt") as lines:
        return list(csv.DictReader(lines))


def column(records: Iterable[dict[str, Any]], name: str) -> NDArray[np.int64]:
    return np.array([int(record[name]) for record in records])


def lengths(prompts: NDArray[np.int64], outputs: NDArray[np.int64]) -> dict[str, Any]:
    """Return how often each output length occurs, and quantiles of the prompt lengths."""
    values, counts = np.unique(outputs, return_counts=True)
    shares = (np.arange(PROMPT_QUANTILES) + 0.5) / PROMPT_QUANTILES
    return {
        "output_tokens": values.tolist(),
        "counts": counts.tolist(),
        "prompt_quantiles": np.quantile(prompts, shares).round().astype(int).tolist(),
    }


def windows(outputs: NDArray[np.int64]) -> dict[str, Any]:
    """Return quantiles of the output lengths of each window of the trace.

    What depends on time in them: neighbours have a correlation of 0.1, and so have those 200
    requests apart, which is what the means of the windows differ by.
    """
    shares = (np.arange(WINDOW_QUANTILES) + 0.5) / WINDOW_QUANTILES
    quantiles = [np.quantile(part, shares) for part in np.array_split(outputs, WINDOWS)]
    return {
        "requests": len(outputs) // WINDOWS,
        "output_quantiles": [row.round().astype(int).tolist() for row in quantiles],
    }


def classes(outputs: NDArray[np.int64], predicted: NDArray[np.int64]) -> dict[str, Any]:
    """Return P(class | rank of the true length), by equal shares of the requests.

    Among requests of one length the rank is by chance, so that each share has its number.
    """
    order = np.lexsort((np.random.default_rng(0).random(len(outputs)), outputs))
    shares = np.array_split(predicted[order], RANKS)
    kinds = int(predicted.max()) + 1
    table = [(np.bincount(share, minlength=kinds) / len(share)).round(5) for share in shares]
    return {"class_given_rank": [row.tolist() for row in table]}


def write(name: str, distribution: dict[str, Any]) -> None:
    path = HERE / f"{name}.json"
    lines = ",\n".join(f'"{key}": {json.dumps(part)}' for key, part in distribution.items())
    path.write_text(f"{{\n{lines}\n}}\n")
    print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
