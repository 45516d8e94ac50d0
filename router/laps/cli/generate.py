"""`laps generate` and `laps cancel`: requests through the service."""

from __future__ import annotations

from typing import Annotated

import typer

from laps.cli.common import REFUSED, EndpointOption, connected, fail
from laps.client import DEFAULT_ENDPOINT, Completed, Delta, Hints, Message, Sampling


def generate(
    prompt: Annotated[str, typer.Argument(help="What to say to the model.")],
    plain: Annotated[
        bool, typer.Option("--plain", help="Continue the text as it is: no chat template.")
    ] = False,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    tenant: Annotated[str, typer.Option(help="Hint: whose request it is.")] = "",
    priority: Annotated[int, typer.Option(help="Hint: larger is more important.")] = 0,
    predicted_tokens: Annotated[int, typer.Option(help="Hint: expected length, in tokens.")] = 0,
    deadline_s: Annotated[float, typer.Option(help="Hint: wanted latency, in seconds.")] = 0.0,
    rid: Annotated[str, typer.Option(help="Id of the request; default: a new one.")] = "",
    worker: Annotated[str, typer.Option(help="Run there; default: where the fewest are.")] = "",
    endpoint: EndpointOption = DEFAULT_ENDPOINT,
) -> None:
    """Generate through the service, and stream the answer to standard output."""
    with connected(endpoint) as client:
        events = client.generate(
            prompt if plain else [Message("user", prompt)],
            sampling=Sampling(max_tokens=max_tokens, temperature=temperature),
            hints=Hints(tenant, priority, predicted_tokens, deadline_s),
            rid=rid,
            worker_id=worker,
        )
        for event in events:
            if isinstance(event, Delta):
                typer.echo(event.text, nl=False)
            elif isinstance(event, Completed):
                typer.echo()
                if event.finish_reason == "abort":
                    raise fail("the request was aborted", REFUSED)


def cancel(
    rid: Annotated[str, typer.Argument(help="Id of the request.")],
    endpoint: EndpointOption = DEFAULT_ENDPOINT,
) -> None:
    """Abort a request, wherever it is."""
    with connected(endpoint) as client:
        worker_id = client.cancel(rid)
    typer.echo(f"{rid} is being aborted on {worker_id}")
