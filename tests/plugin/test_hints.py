"""What clients may say about a request, and what they are told when it makes no sense."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laps.engine.types import Hints
from laps_sglang.hints import NO_HINTS, HintError, parse_hints


@pytest.mark.parametrize("params", [None, {}, {"other": 1}, {"__req__": object()}])
def test_no_hints(params: Any) -> None:
    assert parse_hints(params) is NO_HINTS


def test_all_hints() -> None:
    given_hints = {"tenant": "a", "priority": -3, "predicted_tokens": 120, "deadline_s": 1.5}
    # SGLang puts the request itself beside what the client sent.
    params = {"laps": given_hints, "__req__": object()}
    assert parse_hints(params) == Hints("a", -3, 120, 1.5)


def test_whole_floats_are_integers() -> None:
    """SGLang's gRPC door carries numbers as floats."""
    assert parse_hints({"laps": {"predicted_tokens": 40.0}}).predicted_tokens == 40


@pytest.mark.parametrize(
    ("hints", "complaint"),
    [
        ([], "must be an object, not list"),
        ({"tennant": "a"}, r"no field \['tennant'\]; it takes tenant, priority"),
        ({"tenant": 3}, "tenant must be a string"),
        ({"tenant": "\ud800"}, "tenant must be a string of at most 256 characters in UTF-8"),
        ({"tenant": "a" * 257}, "tenant must be a string of at most 256"),
        ({"priority": 1.5}, "priority must be an integer"),
        ({"priority": True}, "priority must be an integer"),
        ({"priority": 2**31}, "priority must be an integer from -2147483648"),
        ({"predicted_tokens": 0}, "predicted_tokens must be an integer from 1"),
        ({"predicted_tokens": "many"}, "predicted_tokens must be an integer"),
        ({"predicted_tokens": float("inf")}, "predicted_tokens must be an integer"),
        ({"deadline_s": 0}, "deadline_s must be a number of seconds above 0"),
        ({"deadline_s": float("nan")}, "deadline_s must be a number of seconds above 0"),
        ({"deadline_s": True}, "deadline_s must be a number"),
    ],
)
def test_bad_hints_are_named(hints: Any, complaint: str) -> None:
    with pytest.raises(HintError, match=complaint):
        parse_hints({"laps": hints})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.sampled_from(["tenant", "priority", "predicted_tokens", "x"]), JSON))
def test_anything_is_hints_or_a_hint_error(hints: dict[str, Any]) -> None:
    with suppress(HintError):
        assert isinstance(parse_hints({"laps": hints}), Hints)
