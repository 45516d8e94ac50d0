"""`laps workers`, `laps queues`, `laps requests`, `laps explain`: what the service sees."""

from __future__ import annotations

from typing import Annotated

import typer

from laps.cli.common import (
    EndpointOption,
    Output,
    OutputOption,
    WorkerOption,
    connected,
    print_json,
    print_table,
)
from laps.client import DEFAULT_ENDPOINT


def workers(
    endpoint: EndpointOption = DEFAULT_ENDPOINT, output: OutputOption = Output.TABLE
) -> None:
    """List the workers, and how they are doing."""
    with connected(endpoint) as client:
        found = client.list_workers()
    if output is Output.JSON:
        print_json(found)
        return
    print_table(
        (
            "WORKER",
            "STATE",
            "MODEL",
            "DRAFTS BY",
            "POLICY",
            "RUNNING",
            "PAUSED",
            "WAITING",
            "ROUND\n(ms)",
            "PREEMPTED",
            "FINISHED",
            "FRESH\n(%)",
            "LEFT OFF BY\n(%)",
        ),
        [
            (
                worker.worker_id,
                "attached" if worker.attached else "detached",
                worker.model,
                worker.algorithm or None,
                worker.policy.name,
                f"{worker.running}/{worker.max_running}",
                worker.paused,
                worker.waiting,
                1000 * worker.round_s,
                worker.preemptions,
                worker.finished,
                100 * worker.fresh_share,
                100 * worker.estimate_error if worker.estimates else None,
            )
            for worker in found
        ],
        "no worker is attached: start SGLang with --laps-endpoint and the service's address",
    )


def queues(
    worker: WorkerOption = "",
    endpoint: EndpointOption = DEFAULT_ENDPOINT,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the queues in the order in which they are served."""
    with connected(endpoint) as client:
        found = client.list_queues(worker)
    if output is Output.JSON:
        print_json(found)
        return
    print_table(
        ("WORKER", "QUEUE", "RUNNING", "PAUSED", "WAITING", "BEST FIRST"),
        [
            (
                queue.worker_id,
                queue.name,
                queue.running,
                queue.paused,
                queue.waiting,
                _first(queue.rids),
            )
            for queue in found
        ],
        "no worker is attached",
    )


def requests(
    worker: WorkerOption = "",
    departed: Annotated[
        bool, typer.Option("--departed", help="Also those that left lately.")
    ] = False,
    endpoint: EndpointOption = DEFAULT_ENDPOINT,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the requests of each worker, best first."""
    with connected(endpoint) as client:
        found = client.list_requests(worker, include_departed=departed)
    if output is Output.JSON:
        print_json(found)
        return
    print_table(
        (
            "REQUEST",
            "WORKER",
            "PHASE",
            "TENANT",
            "OUTPUT\n(tokens)",
            "PREDICTED\n(tokens)",
            "ROUNDS",
            "ACCEPTED\n(tokens/round)",
            "LEFT\n(s)",
            "PREEMPTED",
            "AGE\n(s)",
        ),
        [
            (
                request.rid,
                request.worker_id,
                request.phase.name.lower(),
                request.hints.tenant or None,
                request.output_tokens,
                request.predicted_tokens,
                request.rounds,
                request.accept_length,
                request.remaining_s or None,
                request.preemptions,
                request.age_s,
            )
            for request in found
        ],
        "no requests",
    )


def explain(
    rid: Annotated[str, typer.Argument(help="Id of the request.")],
    endpoint: EndpointOption = DEFAULT_ENDPOINT,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say why a request runs, or what it waits for."""
    with connected(endpoint) as client:
        explained = client.explain(rid)
    if output is Output.JSON:
        print_json(explained)
        return
    request = explained.request
    rows = [
        ("request", request.rid),
        ("worker", request.worker_id),
        ("phase", request.phase.name.lower()),
        ("policy", explained.policy),
    ]
    if explained.queue:
        rows += [("queue", explained.queue), ("rank", str(explained.rank))]
        rows += [(f"key: {part.name}", f"{part.value:,.10g}") for part in explained.key]
    rows.append(("reason", explained.reason))
    print_table(("", ""), rows, "")


def _first(rids: tuple[str, ...], most: int = 3) -> str:
    """Return the ids of a queue in one line."""
    more = f" and {len(rids) - most} more" if len(rids) > most else ""
    return " ".join(rids[:most]) + more
