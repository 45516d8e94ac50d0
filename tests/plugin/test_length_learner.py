"""What is learnt of output lengths from prompts, and the file that it is kept in."""

from __future__ import annotations

import io
import math
import os
import random
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laps_sglang.lengths import learner as learner_module
from laps_sglang.lengths import state as state_module
from laps_sglang.lengths.features import COLUMNS, Features, features
from laps_sglang.lengths.learner import ENOUGH, LengthLearner
from laps_sglang.lengths.prompts import HEAD, TAIL, PromptLog
from laps_sglang.lengths.state import LengthModelError, check, load, new_state, save

STORY, SUM = 7, 8
"""Tokens that make answers long and short."""
Request = tuple[Features, int]


def request(draw: random.Random, kind: int, tenant: str = "") -> Features:
    tokens = [draw.randrange(100, 1000) for _ in range(20)]
    tokens[draw.randrange(20)] = kind
    return features(np.array(tokens), len(tokens), tenant)


def answers(count: int, seed: int = 1) -> Iterator[Request]:
    """Yield requests whose answers have some 300 tokens, or some 20, by a word of the prompt."""
    draw = random.Random(seed)
    for _ in range(count):
        kind = draw.choice((STORY, SUM))
        tokens = (300 if kind == STORY else 20) * math.exp(0.2 * draw.gauss(0, 1))
        yield request(draw, kind), round(tokens)


def taught(*lessons: Request) -> LengthLearner:
    learner = LengthLearner(new_state())
    for lesson in lessons:
        learner.learn(*lesson)
    return learner


def test_it_finds_the_word_that_makes_answers_long() -> None:
    learner = taught(*answers(1000))
    draw = random.Random(2)
    for kind, tokens in ((STORY, 300), (SUM, 20)):
        logs = learner.predict([request(draw, kind) for _ in range(50)])
        assert np.mean(logs) == pytest.approx(math.log(tokens), abs=0.3)
    assert learner.tells
    assert learner.state.error < 0.5 * learner.state.error_of_mean


def test_it_tells_nothing_before_it_has_learnt_enough() -> None:
    lessons = list(answers(ENOUGH))
    assert not taught(*lessons[:-1]).tells
    assert taught(*lessons).tells


def test_it_tells_nothing_where_prompts_tell_nothing() -> None:
    draw = random.Random(3)
    lessons = ((prompt, round(draw.lognormvariate(5, 1))) for prompt, _ in answers(1000))
    assert not taught(*lessons).tells


def test_it_tells_tenants_apart() -> None:
    draw = random.Random(4)
    of = {"chat": 300, "code": 20}
    lessons = [(name, request(draw, SUM, name)) for name in of for _ in range(300)]
    draw.shuffle(lessons)
    learner = taught(*((prompt, of[name]) for name, prompt in lessons))
    for name, tokens in of.items():
        (log,) = learner.predict([request(draw, SUM, name)])
        assert log == pytest.approx(math.log(tokens), abs=0.3)


def test_nothing_is_predicted_to_be_longer_than_anything_was() -> None:
    learner = taught(*answers(400))
    longest = max(tokens for _, tokens in answers(400))
    (log,) = learner.predict([features(np.full(9, STORY), 1, "of nobody")])
    assert log == pytest.approx(math.log(longest))


def test_it_follows_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner_module, "KEPT", 300)
    learner = taught(*answers(600))
    for prompt, tokens in answers(600, seed=5):
        learner.learn(prompt, 4 * tokens)
    draw = random.Random(6)
    logs = learner.predict([request(draw, SUM) for _ in range(50)])
    assert np.mean(logs) == pytest.approx(math.log(4 * 20), abs=0.3)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=600), st.integers(0, 2**31), st.text())
def test_any_prompt_can_be_learnt(tokens: list[int], prompt_tokens: int, tenant: str) -> None:
    prompt = features(np.array(tokens, np.int64), prompt_tokens, tenant)
    assert prompt.places.dtype == np.uint16
    assert (np.diff(prompt.places.astype(int)) > 0).all()
    learner = LENIENT
    learner.learn(prompt, len(tokens))
    others = [request(random.Random(seed), STORY) for seed in range(3)]
    logs = learner.predict([prompt, *others])
    assert all(map(math.isfinite, logs))
    assert logs == pytest.approx([learner.predict([one])[0] for one in (prompt, *others)])


LENIENT = taught()
"""Learns from one example after the other of the test above."""


def test_very_long_prompts_are_learnt_from_as_well() -> None:
    draw = random.Random(9)
    long = [request(draw, SUM)._replace(length=features(EMPTY, 2**20, "").length) for _ in "abcd"]
    lessons = (lesson for pair in answers(400) for lesson in (pair, (draw.choice(long), 20)))
    assert taught(*lessons).tells


EMPTY = np.array([], np.int64)


@given(st.lists(st.integers(0, 2**31), max_size=2 * (HEAD + TAIL)), st.booleans())
def test_of_a_long_prompt_both_ends_count(tokens: list[int], packed: bool) -> None:
    log = PromptLog()
    log.arrived(3, array("q", tokens) if packed else tokens)
    log.finished(2, 5)
    told = log.take()
    assert told is not None
    ((handle, kept),) = told.prompts
    assert handle == 3
    long = len(tokens) > HEAD + TAIL
    assert list(array("q", kept)) == (tokens[:HEAD] + tokens[-TAIL:] if long else tokens)
    assert told.lengths == ((2, 5),)
    assert log.take() is None


def test_what_was_learnt_comes_back_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "lengths.npz"
    learner = taught(*answers(400))
    save(learner.state, path)
    again = LengthLearner(load(path))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    prompts = [prompt for prompt, _ in answers(20, seed=7)]
    assert again.predict(prompts) == pytest.approx(learner.predict(prompts), abs=1e-4)
    assert again.state.learnt == 400
    assert again.state.error == learner.state.error
    assert again.tells
    for lesson in answers(40, seed=8):
        again.learn(*lesson)
    assert again.state.learnt == 440
    # Few new requests do not drown what the many before them taught.
    assert again.predict(prompts) == pytest.approx(learner.predict(prompts), abs=0.7)


def _archive(**changes: object) -> bytes:
    arrays = vars(new_state()) | {"format": state_module.FORMAT} | changes
    return _saved(np.savez, **{name: array for name, array in arrays.items() if array is not None})


def _saved(how: Callable[..., None], *arrays: object, **named: object) -> bytes:
    file = io.BytesIO()
    how(file, *arrays, **named)
    return file.getvalue()


def _flipped(data: bytes) -> bytes:
    return data[:64] + bytes([data[64] ^ 255]) + data[65:]


NOT_MODELS: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"lengths: 1, 2, 3\n",
    "cut short": lambda: _archive()[:1000],
    "another archive": lambda: _archive(extra=np.zeros(3)),
    "another format": lambda: _archive(format="sglang-laps lengths 0"),
    "nothing learnt in it": lambda: _archive(weights=None),
    "other features": lambda: _archive(weights=np.zeros(10)),
    "not finite": lambda: _archive(intercept=np.nan),
    "words for numbers": lambda: _archive(mean="four"),
    "pickled": lambda: _archive(mean=np.array({}, dtype=object)),
    "one array": lambda: _saved(np.save, np.zeros(3)),
    "broken inside": lambda: _flipped(_saved(np.savez_compressed, **vars(new_state()))),
    "complex": lambda: _archive(mean=1j),
    "less than nothing learnt": lambda: _archive(learnt=-1),
    "answers without end": lambda: _archive(longest=1000.0),
    "weights without bounds": lambda: _archive(weights=np.full(COLUMNS, -1e308)),
}


@pytest.mark.parametrize("kind", NOT_MODELS)
def test_what_is_no_model_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "lengths.npz"
    path.write_bytes(_archive())
    check(path)
    path.write_bytes(NOT_MODELS[kind]())
    with pytest.raises(LengthModelError, match=rf"{path.name} is .*: remove it, or name another"):
        check(path)


def test_a_file_is_for_its_owner_and_two_who_write_it_do_not_mix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "lengths.npz", taught(*answers(3)).state

    def meanwhile(fd: int) -> None:
        monkeypatch.undo()
        save(other, path)

    monkeypatch.setattr(os, "fsync", meanwhile)
    save(new_state(), path)
    assert load(path).learnt == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(LengthModelError, match="is no model of lengths"):
        check(tmp_path)


def test_a_file_that_could_not_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LengthModelError, match="no folder that can be written to; make it first"):
        check(tmp_path / "nowhere" / "lengths.npz")


def test_without_scikit_learn_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "find_spec", lambda _: None)
    with pytest.raises(LengthModelError, match=r"pip install 'sglang-laps\[lengths\]'"):
        check(tmp_path / "lengths.npz")
