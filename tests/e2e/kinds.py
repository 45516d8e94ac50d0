"""Everything that a request can carry, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from sglang.srt.sampling.custom_logit_processor import DisallowedTokensLogitsProcessor

from e2e.load import ANSWER_TIMEOUT_S, WORDS
from testbed.launch import SglangServer

KINDS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "grammar": {"sampling_params": {"regex": "(ab|cd|[0-9]){8,20}!"}},
    "json schema": {
        "sampling_params": {
            "json_schema": '{"type": "object", "properties": {"a": {"type": "integer"}}, '
            '"required": ["a"]}'
        }
    },
    "logprobs": {"return_logprob": True, "top_logprobs_num": 2, "logprob_start_len": 0},
    "hidden states": {"return_hidden_states": True},
    "penalties": {"sampling_params": {"frequency_penalty": 0.8, "presence_penalty": 0.3}},
    "custom logit processor": {
        "custom_logit_processor": DisallowedTokensLogitsProcessor.to_str(),
        "sampling_params": {"custom_params": {"token_ids": list(range(0, 1000, 3))}},
    },
    "logit bias": {"sampling_params": {"logit_bias": {"37": 2.5, "40": -100.0}}},
    "stop string": {"sampling_params": {"stop": ["e", "zz"]}},
    "two answers": {"sampling_params": {"n": 2}},
    "minimum": {"sampling_params": {"min_new_tokens": 30, "max_new_tokens": 40}},
    "beams": {"sampling_params": {"beam_width": 3, "n": 2}},
    "session": {"session_params": {}},
}
FLAGS = ("--enable-custom-logit-processor", "--enable-return-hidden-states")
FEW_SLOTS = ("--max-running-requests", "6")
COPIES = 3


def bodies(kind: str) -> list[dict[str, Any]]:
    """Requests of a kind, of different length."""
    number, fields = list(KINDS).index(kind), KINDS[kind]
    made = []
    for i in range(COPIES):
        sampling = {"temperature": 0, "max_new_tokens": 18 + 9 * i, "ignore_eos": True}
        text = " ".join(WORDS[(number + i + k) % len(WORDS)] for k in range(2 + 3 * i))
        body = {"text": text, **fields}
        body["sampling_params"] = sampling | fields.get("sampling_params", {})
        made.append(body)
    return made


def answers(server: SglangServer, kinds: Iterable[str], at_once: bool) -> dict[str, list[Any]]:
    """What the requests of each kind come to: all of them sent at once, or one after the other."""
    asked = {kind: bodies(kind) for kind in kinds}
    flat = [body for its in asked.values() for body in its]
    with ThreadPoolExecutor(len(flat) if at_once else 1) as pool:
        came = iter(list(pool.map(lambda body: _answer(server, body), flat)))
    return {kind: [next(came) for _ in its] for kind, its in asked.items()}


def _answer(server: SglangServer, body: dict[str, Any]) -> list[tuple[str, Any, list[float]]]:
    return _turns(server, body) if "session_params" in body else _choices(server, body)


def _turns(server: SglangServer, body: dict[str, Any]) -> list[tuple[str, Any, list[float]]]:
    """What a request comes to in a session: first, when it goes on, and when it starts over."""
    session = _post(server, "open_session", {"capacity_of_str_len": 1000}).json()
    turns = []
    for rid, of, replace in (("1", None, False), ("2", "1", False), ("3", "1", True)):
        place = {"id": session, "rid": of and session + of, "replace": replace}
        turns += _choices(server, body | {"rid": session + rid, "session_params": place})
    _post(server, "close_session", {"session_id": session})
    return turns


def _post(server: SglangServer, path: str, body: dict[str, Any]) -> httpx.Response:
    response = httpx.post(f"{server.base_url}/{path}", json=body, timeout=ANSWER_TIMEOUT_S)
    return response.raise_for_status()


def _choices(server: SglangServer, body: dict[str, Any]) -> list[tuple[str, Any, list[float]]]:
    """Text, reason to finish, and numbers (log probabilities, hidden states) of every choice."""
    response = httpx.post(f"{server.base_url}/generate", json=body, timeout=ANSWER_TIMEOUT_S)
    if response.is_client_error:
        return [(response.json()["error"]["message"], None, [])]
    response.raise_for_status()
    found = response.json()
    choices = found if isinstance(found, list) else [found]
    return [
        (choice["text"], choice["meta_info"]["finish_reason"], _numbers(choice["meta_info"]))
        for choice in choices
    ]


def _numbers(meta: dict[str, Any]) -> list[float]:
    tokens = [*meta.get("input_token_logprobs", ()), *meta.get("output_token_logprobs", ())]
    tokens += [top for tops in meta.get("output_top_logprobs", ()) for top in tops]
    logprobs = [logprob for logprob, _, _ in tokens if logprob is not None]
    # The first entry is the prompt's, less what the cache held of it. SGLang goes on after the
    # last token with those that the last round brought beyond, which depend on its drafts.
    hidden_states = meta.get("hidden_states", ())[1 : meta["completion_tokens"]]
    return logprobs + list(_flat(hidden_states))


def _flat(nested: Any) -> Iterable[float]:
    if isinstance(nested, list | tuple):
        for inner in nested:
            yield from _flat(inner)
    else:
        yield nested
