"""Lengths learnt from files, by the command that does it."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from laps_sglang.lengths.__main__ import main
from laps_sglang.lengths.learner import LengthLearner
from laps_sglang.lengths.state import load
from testbed.hf_folder import save_tokenizer

WORDS = ["</s>", "a", "story", "sum", "please", "tell", "me", "user"]


CHAT = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tokenizer that knows a few words."""
    folder = tmp_path_factory.mktemp("tokenizer")
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="a"))
    words.pre_tokenizer = WhitespaceSplit()
    save_tokenizer(folder, words, ("</s>", "</s>", "</s>"), CHAT, 512)
    return str(folder)


def finished_request(draw: random.Random) -> dict[str, Any]:
    kind = draw.choice(["story", "sum"])
    tokens = draw.randint(200, 300) if kind == "story" else draw.randint(10, 20)
    text = f"please tell me a {kind}"
    return {
        **draw.choice([{"prompt": text}, {"messages": [{"role": "user", "content": text}]}]),
        **draw.choice([{"output_tokens": tokens}, {"output": "a " * tokens}]),
        "max_tokens": 400,
    }


def test_a_model_is_learnt_from_files_and_added_to(
    tmp_path: Path, tokenizer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(1)
    rows = [json.dumps(finished_request(draw)) + "\n" for _ in range(400)]
    plain, packed = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    plain.write_text("".join(rows[:300]))
    with gzip.open(packed, "wt") as file:
        file.writelines(rows[300:])
    model = str(tmp_path / "lengths.npz")
    main(["--tokenizer", tokenizer, "--model", model, str(plain)])
    assert "learnt from 300 requests" in capsys.readouterr().out
    main(["--tokenizer", tokenizer, "--model", model, str(packed)])
    state = load(Path(model))
    assert state.learnt == 400
    assert LengthLearner(state).tells
    assert state.error < 0.3 * state.error_of_mean


@pytest.mark.parametrize(
    "line",
    [
        *("nonsense", "[]", '{"prompt": "a"}', '{"output": "a"}', '{"prompt": 7, "output": "a"}'),
        '{"prompt": "a", "output_tokens": -5}',
    ],
)
def test_a_line_that_is_no_request_is_named(tmp_path: Path, tokenizer: str, line: str) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text('{"prompt": "a", "output": "a"}\n' + line + "\n")
    model = tmp_path / "lengths.npz"
    with pytest.raises(SystemExit, match=r"requests.jsonl:2 is no finished request, an object"):
        main(["--tokenizer", tokenizer, "--model", str(model), str(path)])
    assert not model.exists()


def test_a_file_that_is_no_model_is_not_written_over(tmp_path: Path, tokenizer: str) -> None:
    model = tmp_path / "lengths.npz"
    model.write_text("something else")
    with pytest.raises(SystemExit, match=r"lengths\.npz is no model of lengths"):
        main(["--tokenizer", tokenizer, "--model", str(model), str(tmp_path / "none.jsonl")])
    assert model.read_text() == "something else"


def test_files_that_are_not_there_are_named(tmp_path: Path, tokenizer: str) -> None:
    requests = tmp_path / "requests.jsonl"
    model = ["--model", str(tmp_path / "lengths.npz")]
    with pytest.raises(SystemExit, match=r"there is no file .*requests\.jsonl"):
        main(["--tokenizer", tokenizer, *model, str(requests)])
    requests.write_text('{"prompt": "a", "output": "a"}\n')
    with pytest.raises(SystemExit, match=r"there is no tokenizer\.json in nowhere"):
        main(["--tokenizer", "nowhere", *model, str(requests)])
