"""Compare policies on a model as large as those in production, of weights made on the machine.

    python -m gpu.large --model MODEL --draft HEAD --prompts A.jsonl --out DIR

The target has the shape of Llama 3 8B and the head that of its EAGLE head, both with the tokenizer
and vocabulary of MODEL and weights that SGLang makes up (`--load-format dummy`): steps cost what
they cost in production, and the texts mean nothing. Acceptance, lengths and rounds are replayed
from the recording in bench/results/gpu, request by request (`gpu.forced`). Else as `gpu.compare`;
writes DIR/large.jsonl and DIR/large-pool.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from gpu.contest import SECONDS, add_arguments, contest, shorten
from gpu.first_pass import LEAST_TOKENS, SHORT_TOKENS, measure_pool
from gpu.load import Clients
from gpu.names import ORACLE, STOCK
from gpu.prompts import read_prompts
from gpu.servers import GPU, MeasurementError, arguments, internal_state, tapped
from gpu.systems import System
from gpu.workload import MAX_TOKENS, Pool
from sim.traces import Traces, load_traces

POLICIES = (STOCK, "fcfs", "srtf", "mlfq", "laps-sd", "laps-sd+", ORACLE)
LOADS = ("0.95", "0.95-bursts", "1.1", "0.9")
PROMPTS = 384
SHORT_PROMPTS = 8
SEED = 1
RECORDED = Path(__file__).parents[1] / "results" / "gpu"
LAYER = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": False,
}
"""Of Llama 3 8B and of its EAGLE head."""
LAYERS = 32
LOAD_FORMAT = ("--load-format", "dummy")


def main() -> None:
    parser = arguments("gpu.large", __doc__)
    add_arguments(parser, POLICIES)
    parser.set_defaults(loads=dict.fromkeys(LOADS, SECONDS))
    options = parser.parse_args()
    shorten(options)
    traces = recording(options.shape)
    longest = SHORT_TOKENS if options.short else MAX_TOKENS
    lengths, rounds = replayed(load_traces(traces), longest)
    count = min(len(lengths), SHORT_PROMPTS if options.short else PROMPTS)
    lengths, rounds = lengths[:count], rounds[:count]
    prompts = read_prompts(options.prompts, SEED)
    texts = [prompts[index % len(prompts)].text for index in range(count)]

    def make_pool(stock: System, clients: Clients) -> Pool:
        pool = measure_pool(stock, clients, texts, lengths, rounds, options.running)
        if not internal_state(stock.server)["bench"]["forced_rows"]:
            raise MeasurementError("acceptance is not forced: this SGLang samples elsewhere")
        return pool

    with tempfile.TemporaryDirectory() as scratch:
        enlarge(options, Path(scratch))
        contest(options, "large", texts, tapped(traces), make_pool)


def replayed(traces: Traces, longest: int) -> tuple[list[int], list[int]]:
    """Return output length and verify rounds of every request of a recording, cut at `longest`.

    The first token comes from the prefill; each round brings its accepted drafts and one more.
    """
    lengths, rounds = [], []
    for begin, end in zip(traces.offsets[:-1], traces.offsets[1:], strict=True):
        had = 1 + np.cumsum(traces.accepted[begin:end].astype(int) + 1)
        length = max(min(int(had[-1]), longest), LEAST_TOKENS)
        lengths.append(length)
        rounds.append(int(np.searchsorted(had, length)) + 1)
    return lengths, rounds


def recording(shape: str) -> Path:
    """Return the path of the recording that is replayed."""
    return RECORDED / f"acceptance-{shape}.npz"


def enlarge(options: argparse.Namespace, folder: Path) -> None:
    """Put models of the larger shape into `folder`, and have the servers use them."""
    options.model, options.draft = make_models(options, folder)
    options.sglang_args = [*LOAD_FORMAT, *options.sglang_args]


def make_models(options: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    """Lay out target and head without weights; return their folders.

    On the CPU test bed they keep the shape that they have: it is to see that it works.
    """
    target, draft = folder / "llama-8b-shape", folder / "llama-8b-shape-eagle"
    for made, source, layers in ((target, options.model, LAYERS), (draft, options.draft, 1)):
        made.mkdir()
        config = json.loads((source / "config.json").read_text())
        if config["model_type"] != "llama":
            raise MeasurementError(
                f"{source} is no Llama: the larger shape needs the config of one"
            )
        if GPU:
            config |= {**LAYER, "num_hidden_layers": layers}
        (made / "config.json").write_text(json.dumps(config))
        for pattern in ("tokenizer*", "special_tokens_map.json", "chat_template*"):
            for path in options.model.glob(pattern):
                shutil.copy(path, made)
    return target, draft


if __name__ == "__main__":
    main()
