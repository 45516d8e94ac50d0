"""Record what verification accepts in real requests, and how long this machine's steps take.

    python -m gpu.record --model MODEL --draft HEAD --prompts A.jsonl.gz B.jsonl --out DIR

Writes DIR/acceptance-SHAPE.npz (the replay traces of `sim.traces`, with the data set, prompt and
output length of each request beside them) and DIR/steps-SHAPE.npz (time by batch size), for every
draft shape. A file that is there is left alone, so that a run that was cut short goes on.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import numpy as np

from gpu.prompts import Prompt, Reply, read_prompts, send_closed
from gpu.recorder import Recorder
from gpu.servers import arguments, note_machine, refuse_others, server
from gpu.shapes import SHAPES
from testbed.worker_link import serving

CLIENTS = 48
SWEEP = (1, 2, 4, 8, 16, 24, 32, 40, 48)
"""Clients at once when steps are timed by batch size."""
SWEEP_TOKENS = 128
MAX_TOKENS = 1024
SHORT, SHORT_TOKENS = 8, 16
SEED = 0


def main() -> None:
    parser = arguments("gpu.record", __doc__)
    parser.add_argument("--limit", type=int, help="record only so many requests")
    options = parser.parse_args()
    prompts = read_prompts(options.prompts, SEED)[: SHORT if options.short else options.limit]
    if any((options.out / f"steps-{shape}.npz").exists() for shape in SHAPES):
        refuse_others(options, "record")
    for shape in SHAPES:
        if not (options.out / f"steps-{shape}.npz").exists():
            note_machine(options, "record")
            record(shape, prompts, options)


def record(shape: str, prompts: list[Prompt], options: argparse.Namespace) -> None:
    """Record one draft shape."""
    recorder = Recorder()
    with serving(recorder) as address:
        process = server(
            options,
            shape,
            f"record-{shape}",
            *("--laps-endpoint", address, "--max-running-requests", str(CLIENTS)),
        )
        with process:

            def run(label: str, some: list[Prompt], clients: int, max_tokens: int) -> list[Reply]:
                return asyncio.run(send_closed(process.base_url, some, label, clients, max_tokens))

            # New batch shapes compile kernels: let them, outside of what is kept.
            longest = SHORT_TOKENS if options.short else MAX_TOKENS
            run("warm-up", prompts[: 4 * CLIENTS], CLIENTS, min(64, longest))
            replies = run("all", prompts, CLIENTS, longest)
            save_acceptance(options.out / f"acceptance-{shape}.npz", recorder, prompts, replies)
            begin = len(recorder.steps)
            sweep_tokens = min(SWEEP_TOKENS, longest)
            for clients in SWEEP[:2] if options.short else SWEEP:
                run(f"sweep-{clients}", prompts[: max(6, 3 * clients)], clients, sweep_tokens)
            save_steps(options.out / f"steps-{shape}.npz", recorder, begin)


def save_acceptance(
    path: Path, recorder: Recorder, prompts: list[Prompt], replies: list[Reply]
) -> None:
    """Write the requests that had a verify round; the format is `sim.traces`'."""
    recorded = {request.rid: request for request in recorder.requests.values()}
    kept = [
        (recorded[reply.rid], prompt.source, reply.completion_tokens)
        for prompt, reply in zip(prompts, replies, strict=True)
        if recorded[reply.rid].accepted
    ]
    accepted = [request.accepted for request, _, _ in kept]
    np.savez_compressed(
        path,
        accepted=np.concatenate([np.asarray(rounds, np.uint8) for rounds in accepted]),
        offsets=np.concatenate(([0], np.cumsum([len(r) for r in accepted]))).astype(np.int64),
        drafts=recorder.drafts,
        prompt_tokens=np.asarray([request.prompt_tokens for request, _, _ in kept], np.int32),
        output_tokens=np.asarray([tokens for _, _, tokens in kept], np.int32),
        source=np.asarray([source for _, source, _ in kept]),
    )


def save_steps(path: Path, recorder: Recorder, begin: int) -> None:
    """Write the steps from number `begin` on, as columns."""
    steps = recorder.steps[begin:]
    np.savez_compressed(
        path,
        time_s=np.asarray([step.time_s for step in steps]),
        running=np.asarray([step.running for step in steps], np.uint16),
        prefilled=np.asarray([step.prefilled for step in steps], np.uint16),
        prefill_tokens=np.asarray([step.prefill_tokens for step in steps], np.uint32),
        round_s=np.asarray([step.round_s for step in steps], np.float32),
    )


if __name__ == "__main__":
    main()
