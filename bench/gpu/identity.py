"""Count how many outputs change when requests are paused at random, against stock SGLang.

    python -m gpu.identity --model MODEL --draft HEAD --prompts A.jsonl --out DIR --case tree

A stock server and a patched one run side by side. Between reports the patched one gets a random
order, until it has made PAUSES pauses; strict memory checks are on. Writes DIR/identity-CASE.json,
unless it is there.

With `--kv-tokens` the patched server has so little KV cache that paused requests are demoted and
computed anew: by other kernels, so that only `--dtype float32` (where the GPU's kernels take it)
can be exact.

In bfloat16 the shape of a batch decides near ties, so two runs of stock SGLang differ, too: give
`--sglang-args --enable-deterministic-inference` (kernels whose results do not depend on the batch)
for a comparison that can be exact.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from contextlib import ExitStack

from e2e.fake_random_service import fake_random_service
from gpu.prompts import complete_closed, read_prompts
from gpu.servers import arguments, flush_cache, internal_state, note_machine, server
from gpu.shapes import SHAPES
from testbed.launch import SglangServer

PAUSES = 10_000
PAUSES_UNDER_PRESSURE = 2_000
REQUESTS = 256
RESIDENT = 64
RUNNING = 8
RUNS_AT_MOST = 20
SEED = 0
CHECKS = {
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE": "1",
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "1",
}


def main() -> None:
    parser = arguments("gpu.identity", __doc__)
    parser.add_argument("--case", default="tree", help="names the result")
    parser.add_argument("--shape", choices=SHAPES, default="tree", help="form of the draft")
    parser.add_argument("--kv-tokens", type=int, help="KV cache of the patched server")
    parser.add_argument(
        "--host-cache",
        action="store_true",
        help="let demoted requests' KV cache go to host memory (--enable-hierarchical-cache)",
    )
    options = parser.parse_args()
    path = options.out / f"identity-{options.case}.json"
    if path.exists():
        return
    note_machine(options, f"identity-{options.case}")
    result = compare(options)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result), path)


def compare(options: argparse.Namespace) -> dict[str, object]:
    """Run both servers; return the counts."""
    count, least, spread = REQUESTS, 32, 400
    wanted = PAUSES_UNDER_PRESSURE if options.kv_tokens else PAUSES
    if options.short:
        count, least, spread, wanted = 24, 8, 40, 20
    texts = [prompt.text for prompt in read_prompts(options.prompts, SEED)[:count]]
    lengths = [least + index * 53 % spread for index in range(len(texts))]

    def outputs(server: SglangServer, label: str) -> list[tuple[int, ...]]:
        # From the same state of the cache: how a prompt is split changes how it is computed.
        flush_cache(server)
        return asyncio.run(complete_closed(server.base_url, texts, lengths, label, RESIDENT))

    with ExitStack() as stack:
        address = stack.enter_context(fake_random_service(SEED))
        flags = {
            "stock": ("--max-running-requests", str(RUNNING)),
            "patched": (
                *("--laps-endpoint", address, "--laps-max-running", str(RUNNING)),
                *("--max-running-requests", str(RESIDENT)),
                *(("--max-total-tokens", str(options.kv_tokens)) if options.kv_tokens else ()),
                *(("--enable-hierarchical-cache",) if options.host_cache else ()),
            ),
        }
        stock, patched = (
            server(
                options, options.shape, f"identity-{options.case}-{name}", *own, environment=CHECKS
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
            "sglang_args": options.sglang_args,
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
