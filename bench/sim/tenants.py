"""Several tenants on one worker, whose requests differ in length and in acceptance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.acceptance import AcceptanceProcess, draw_rounds
from sim.lengths import Lengths
from sim.workload import Ints, Rounds

Rng = np.random.Generator


@dataclass(frozen=True)
class Tenant:
    """One who sends requests of a kind."""

    name: str
    share: float
    """Of all requests; those of all tenants add up to 1."""
    lengths: Lengths
    acceptance: AcceptanceProcess


@dataclass(frozen=True)
class Requests:
    """What is drawn of requests, in order of arrival."""

    tenant: Ints
    """Index of the tenant that sends each."""
    output_tokens: Ints
    prompt_tokens: Ints
    rounds: Rounds


def draw_requests(
    tenants: Sequence[Tenant], count: int, kinds: Rng, outputs: Rng, prompts: Rng, drafts: Rng
) -> Requests:
    """Draw `count` requests, each independently of the others of one tenant or another."""
    shares = [tenant.share for tenant in tenants]
    tenant: Ints = kinds.choice(len(tenants), size=count, p=shares)
    places = [np.flatnonzero(tenant == index) for index in range(len(tenants))]
    # Drawn tenant by tenant, then put in order of arrival.
    order = np.argsort(np.concatenate(places))
    output_tokens = [
        sender.lengths.draw_outputs(outputs, len(place))
        for sender, place in zip(tenants, places, strict=True)
    ]
    prompt_tokens = [
        sender.lengths.draw_prompts(prompts, len(place))
        for sender, place in zip(tenants, places, strict=True)
    ]
    rounds = [
        draw_rounds(sender.acceptance, drafts, tokens)
        for sender, tokens in zip(tenants, output_tokens, strict=True)
    ]
    return Requests(
        tenant=tenant,
        output_tokens=np.concatenate(output_tokens)[order],
        prompt_tokens=np.concatenate(prompt_tokens)[order],
        rounds=Rounds.joined(rounds).take(order),
    )
