"""Count how many outputs change when requests are paused at random, against stock SGLang.

    python -m gpu.identity --model MODEL --draft HEAD --prompts A.jsonl --out DIR --case tree

A stock server and a patched one run side by side. Between reports the patched one gets a random
order, until it has made PAUSES pauses; strict memory checks are on. Writes DIR/identity-CASE.json,
unless it is there.

In bfloat16 the shape of a batch decides near ties, so two runs of stock SGLang differ, too; on a
GPU both servers have kernels whose results do not depend on the batch
(`--enable-deterministic-inference`).

With `--kv-tokens` the patched server has so little KV cache that paused requests are demoted and
computed anew: by a prefill, which adds up in another order than the rounds did, so that only
`--dtype float32` can be exact. Layers are then those of PyTorch, because some of SGLang's kernels
take no float32.

With `--tp 2` both servers are spread over two GPUs; a model whose heads do not divide gets some of
zeros (`gpu.divisible`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from contextlib import ExitStack
from pathlib import Path

from e2e.fake_random_service import fake_random_service
from gpu.divisible import make_divisible
from gpu.prompts import complete_closed, read_prompts
from gpu.servers import (
    GPU,
    arguments,
    flush_cache,
    internal_state,
    note_machine,
    refuse_others,
    server,
)
from gpu.shapes import SHAPES
from testbed.launch import SglangServer

PAUSES = 10_000
PAUSES_ELSEWHERE = 2_000
"""Under memory pressure, and on several GPUs."""
REQUESTS = 256
RESIDENT = 64
RUNNING = 8
RUNS_AT_MOST = 20
SEED = 0
CHECKS = {
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE": "1",
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "1",
}
# Without a GPU there is but this way of copying (tests/testbed).
PLAIN_COPIES = ("--hicache-io-backend", "direct", "--hicache-mem-layout", "layer_first")
HOST_CACHE = ("--enable-hierarchical-cache", *(() if GPU else PLAIN_COPIES))


def main() -> None:
    parser = arguments("gpu.identity", __doc__)
    parser.add_argument("--case", default="tree", help="names the result")
    parser.add_argument("--shape", choices=SHAPES, default="tree", help="form of the draft")
    parser.add_argument("--kv-tokens", type=int, help="KV cache of the patched server")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: the model's")
    parser.add_argument("--tp", type=int, default=1, help="GPUs that each server is spread over")
    parser.add_argument(
        "--host-cache",
        action="store_true",
        help="let demoted requests' KV cache go to host memory (--enable-hierarchical-cache)",
    )
    options = parser.parse_args()
    path = options.out / f"identity-{options.case}.json"
    if path.exists():
        refuse_others(options, f"identity-{options.case}")
        return
    note_machine(options, f"identity-{options.case}")
    with tempfile.TemporaryDirectory() as scratch:
        if options.tp > 1:
            for name in ("model", "draft"):
                source: Path = getattr(options, name)
                setattr(options, name, make_divisible(source, Path(scratch, name), options.tp))
        result = compare(options)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result), path)


def compare(options: argparse.Namespace) -> dict[str, object]:
    """Run both servers; return the counts."""
    count, least, spread = REQUESTS, 32, 400
    wanted = PAUSES_ELSEWHERE if options.kv_tokens or options.tp > 1 else PAUSES
    if options.short:
        count, least, spread, wanted = 24, 8, 40, 20
    texts = [prompt.text for prompt in read_prompts(options.prompts, SEED)[:count]]
    lengths = [least + index * 53 % spread for index in range(len(texts))]

    def outputs(server: SglangServer, label: str) -> list[tuple[int, ...]]:
        # From the same state of the cache: how a prompt is split changes how it is computed.
        flush_cache(server)
        return asyncio.run(complete_closed(server.base_url, texts, lengths, label, RESIDENT))

    common = (
        *("--tp-size", str(options.tp)),
        *(("--dtype", options.dtype) if options.dtype else ()),
        *(("--enable-deterministic-inference",) if GPU else ()),
    )

    with ExitStack() as stack:
        address = stack.enter_context(fake_random_service(SEED))
        flags = {
            "stock": ("--max-running-requests", str(RUNNING)),
            "patched": (
                *("--laps-endpoint", address, "--laps-max-running", str(RUNNING)),
                *("--max-running-requests", str(RESIDENT)),
                *(("--max-total-tokens", str(options.kv_tokens)) if options.kv_tokens else ()),
                *(HOST_CACHE if options.host_cache else ()),
            ),
        }
        stock, patched = (
            server(
                options,
                options.shape,
                f"identity-{options.case}-{name}",
                *common,
                *own,
                environment=CHECKS,
            )
            for name, own in flags.items()
        )
        for process in (stock, patched):
            stack.callback(process.stop)
            process.start()
        for process in (stock, patched):
            process.wait_until_ready()
        expected = outputs(stock, "stock 1")
        again = outputs(stock, "stock 2")
        differences = runs = 0
        while counted(patched)["pauses"] < wanted and runs < RUNS_AT_MOST:
            runs += 1
            differences += count_differences(expected, outputs(patched, f"paused {runs}"))
        return {
            "shape": options.shape,
            "kv_tokens": options.kv_tokens,
            "host_cache": options.host_cache,
            "tp": options.tp,
            "dtype": options.dtype,
            "sglang_args": [*options.sglang_args, *common],
            "pauses": counted(patched)["pauses"],
            "demotions": counted(patched)["demotions"],
            "requests": runs * len(texts),
            "differences": differences,
            "stock_requests": len(texts),
            "stock_differences": count_differences(expected, again),
        }


def counted(patched: SglangServer) -> dict[str, int]:
    """Return what the plugin has counted since the server started."""
    laps: dict[str, int] = internal_state(patched)["laps"]
    return laps


def count_differences(expected: list[tuple[int, ...]], found: list[tuple[int, ...]]) -> int:
    """Return how many outputs are not the expected token ids."""
    return sum(one != other for one, other in zip(expected, found, strict=True))


if __name__ == "__main__":
    main()
