"""A data-parallel server under random plans: each replica is a worker of its own at the service.

And whatever a request can carry comes out as from stock SGLang.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sglang.srt.sampling.custom_logit_processor import DisallowedTokensLogitsProcessor

from e2e.fake_random_service import fake_random_service
from e2e.load import WORDS
from e2e.servers import PATIENCE_S, PLAIN, SYNC, sglang, until
from testbed.launch import SglangServer

KINDS: dict[str, dict[str, Any]] = {
    "grammar": {"sampling_params": {"regex": "(ab|cd|[0-9]){8,20}!"}},
    "json schema": {
        "sampling_params": {
            "json_schema": '{"type": "object", "properties": {"a": {"type": "integer"}}, '
            '"required": ["a"]}'
        }
    },
    "logprobs": {"return_logprob": True, "top_logprobs_num": 2, "logprob_start_len": 0},
    "penalties": {"sampling_params": {"frequency_penalty": 0.8, "presence_penalty": 0.3}},
    "custom logit processor": {
        "custom_logit_processor": DisallowedTokensLogitsProcessor.to_str(),
        "sampling_params": {"custom_params": {"token_ids": list(range(0, 1000, 3))}},
    },
    "logit bias": {"sampling_params": {"logit_bias": {"37": 2.5, "40": -100.0}}},
    "stop string": {"sampling_params": {"stop": ["e", "zz"]}},
    "two answers": {"sampling_params": {"n": 2}},
    "minimum": {"sampling_params": {"min_new_tokens": 30, "max_new_tokens": 40}},
}
FLAGS = ("--enable-custom-logit-processor",)


def bodies() -> list[tuple[str, dict[str, Any]]]:
    """Four requests of every kind, of different length."""
    made = []
    for number, (kind, fields) in enumerate(KINDS.items()):
        for i in range(4):
            sampling = {"temperature": 0, "max_new_tokens": 24 + 9 * i, "ignore_eos": True}
            text = " ".join(WORDS[(number + i + k) % len(WORDS)] for k in range(2 + 3 * i))
            body = {"text": text, **fields}
            body["sampling_params"] = sampling | fields.get("sampling_params", {})
            made.append((f"{kind} {i}", body))
    return made


def answer(server: SglangServer, body: dict[str, Any]) -> Any:
    """What a request comes to: texts, reasons to finish, and log probabilities."""
    response = httpx.post(f"{server.base_url}/generate", json=body, timeout=PATIENCE_S)
    response.raise_for_status()
    found = response.json()
    return [
        (
            choice["text"],
            choice["meta_info"]["finish_reason"],
            _logprobs(choice["meta_info"]),
        )
        for choice in (found if isinstance(found, list) else [found])
    ]


def _logprobs(meta: dict[str, Any]) -> list[float]:
    tokens = [*meta.get("input_token_logprobs", ()), *meta.get("output_token_logprobs", ())]
    tokens += [top for tops in meta.get("output_top_logprobs", ()) for top in tops]
    return [logprob for logprob, _, _ in tokens if logprob is not None]


def blocks(server: SglangServer) -> list[dict[str, Any]]:
    """What the plugin says of itself in `/server_info`, replica by replica."""
    response = httpx.get(f"{server.base_url}/server_info", timeout=PATIENCE_S)
    response.raise_for_status()
    return [dict(state["laps"]) for state in response.json()["internal_states"]]


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SglangServer]:
    """Two replicas, of which each runs one request at a time, in random order."""
    log = tmp_path_factory.mktemp("parallel") / "sglang.log"
    with fake_random_service() as address:
        laps = ("--laps-endpoint", address, "--laps-max-running", "1")
        with sglang(PLAIN, log, "--dp-size", "2", *FLAGS, *laps, loop=SYNC) as server:
            yield server


def test_each_replica_is_a_worker_of_its_own(replicas: SglangServer) -> None:
    assert until(lambda: [b["decided_by"] for b in blocks(replicas)] == ["service"] * 2)


def test_everything_a_request_can_carry(
    replicas: SglangServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = tmp_path_factory.mktemp("stock") / "sglang.log"
    with sglang(PLAIN, log, *FLAGS, loop=SYNC) as stock:
        expected = {name: answer(stock, body) for name, body in bodies()}
    with ThreadPoolExecutor(len(expected)) as pool:
        answers = dict(
            zip(
                expected,
                pool.map(lambda named: answer(replicas, named[1]), bodies()),
                strict=True,
            )
        )
    for name, choices in expected.items():
        same = [(text, reason, pytest.approx(values, abs=1e-3)) for text, reason, values in choices]
        assert answers[name] == same, name
    assert all(block["pauses"] > 10 for block in blocks(replicas)), replicas.log_tail()
