"""Run the demo (`python -m demo`), or keep its system up for you to try (`python -m demo up`)."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import openai
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from demo.load import Answer, Prompt, read_prompts, send_all
from demo.report import Run, latency_table, queue_table, summary, write
from demo.system import System, default_draft, default_model, running
from laps.client import LapsClient, PolicySpec, Queue

OUT = Path(".demo")
POLICIES = ("laps-sd", "fcfs")
"""LAPS-SD first, because then its length predictor has seen no such request finish yet."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("action", nargs="?", choices=("run", "up"), default="run")
    parser.add_argument("--model", default=str(default_model()), help="target model, by path")
    parser.add_argument("--draft", default=str(default_draft()), help="EAGLE head, by path")
    parser.add_argument(
        "--sglang-args", type=shlex.split, default=[], help="more arguments for the SGLang server"
    )
    options = parser.parse_args()
    # A plain kill, too, must unwind and stop what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # A shell's background jobs are born deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    console = Console()
    OUT.mkdir(exist_ok=True)
    try:
        with running(options, OUT, console) as system:
            show_doors(system, console)
            if options.action == "up":
                console.print("Running until Ctrl-C.")
                signal.pause()
            else:
                asyncio.run(compare(system, console))
    except KeyboardInterrupt:
        console.print("Stopped.")
        sys.exit(130)


async def compare(system: System, console: Console) -> None:
    """Send the load once under each policy, and report."""
    prompts = read_prompts(system.scale)
    endpoint = openai.AsyncOpenAI(
        base_url=f"{system.openai_url}/v1", api_key="none", timeout=1800, max_retries=0
    )
    runs: dict[str, Run] = {}
    async with LapsClient(system.service) as service, endpoint:
        with Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        ) as progress:
            await warm_up(system, prompts, endpoint, service, progress)
            for policy in POLICIES:
                await service.set_policy(PolicySpec(policy))
                runs[policy] = await one_run(policy, prompts, endpoint, service, progress)
    figures = summary({name: runs[name] for name in sorted(runs)})
    path = OUT / "demo.json"
    write(figures, path)
    console.print(queue_table(runs["laps-sd"]))
    console.print(latency_table(figures))
    console.print(
        "Next: [b]make up[/b] keeps this system running for you to try; [b]make test[/b] proves "
        "it; [b]docs/policies.md[/b] says what the policies do."
    )
    print(path)


async def warm_up(
    system: System,
    prompts: list[Prompt],
    endpoint: openai.AsyncOpenAI,
    service: LapsClient,
    progress: Progress,
) -> None:
    """Prefill every prompt once, so that all runs find the same prefix cache, and all is compiled.

    Answers are cut short, so that the length predictor learns nothing that would help it later.
    """

    async def count(_: Answer) -> None:
        progress.advance(task)

    await service.set_policy(PolicySpec("laps-sd"))
    longest = system.warm_up_tokens
    cut = [replace(prompt, max_tokens=min(prompt.max_tokens, longest)) for prompt in prompts]
    task = progress.add_task("warm-up", total=len(cut))
    await send_all(endpoint, cut, "warm-up", count)


async def one_run(
    policy: str,
    prompts: list[Prompt],
    endpoint: openai.AsyncOpenAI,
    service: LapsClient,
    progress: Progress,
) -> Run:
    """Send the load under `policy`, and look at the queues half way."""
    task = progress.add_task(policy, total=len(prompts))
    done = 0
    half_way: list[Queue] = []

    async def count(_: Answer) -> None:
        nonlocal done
        done += 1
        progress.advance(task)
        if done == len(prompts) // 2:
            half_way.extend(await service.list_queues())

    begin = time.perf_counter()
    answers = await send_all(endpoint, prompts, policy, count)
    wall_s = time.perf_counter() - begin
    # The last finish is in the worker's next report, which may still be under way.
    rids = {answer.rid for answer in answers}
    statuses = [s for s in await service.list_requests(include_departed=True) if s.rid in rids]
    return Run(answers, statuses, half_way, wall_s)


def show_doors(system: System, console: Console) -> None:
    """Print how to use the running system from another terminal."""
    console.print(
        "To try from another terminal while it runs:\n"
        f"  curl {system.openai_url}/v1/chat/completions -H 'Content-Type: application/json' "
        """-d '{"model":"default","messages":[{"role":"user","content":"Hello!"}]}'\n"""
        f"  export LAPS_ENDPOINT={system.service} PATH={Path(sys.executable).parent}:$PATH\n"
        "  laps generate 'Why is the sky blue?'\n"
        "  laps workers; laps queues; laps requests\n"
        f"and with the SDK: SyncLapsClient({system.service!r})",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


if __name__ == "__main__":
    main()
