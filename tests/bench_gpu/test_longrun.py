"""Long runs on the worker that was measured."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from bench_gpu.test_replay import POOL, measured
from gpu import longrun
from gpu.summary import read_results


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "large-pool.json").write_text(json.dumps(asdict(POOL)))
    return tmp_path


def simulate(folder: Path, monkeypatch: pytest.MonkeyPatch, *rows: dict[str, object]) -> None:
    (folder / "large.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["longrun", "--out", str(folder), "--requests", "100", "--jobs", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    longrun.main()


def test_every_load_that_has_a_long_run_is_simulated_under_every_policy(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first of these had no prefill between two rounds.
    untimed = measured("laps-sd", prefill_s=None, prefill_request_s=None)
    simulate(folder, monkeypatch, untimed, measured("laps-sd+"), measured("stock"))
    found = [json.loads(line) for line in (folder / "longrun.jsonl").read_text().splitlines()]
    assert {row["policy"] for row in found} == set(longrun.POLICIES)
    assert {row["load"] for row in found} == {"0.95", "0.95-bursts", "0.9", "0.7"}
    assert len(found) == longrun.SEEDS * len(longrun.POLICIES) * 4
    assert all(row["mean_s"] > 0.0 for row in found)
    contests = read_results(folder).longrun
    assert list(contests) == ["large"]
    assert contests["large"].loads == ["0.95", "0.95-bursts", "0.9", "0.7"]


def test_without_a_run_that_says_what_a_prefill_costs_there_is_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "longrun.jsonl").write_text("of others\n")
    simulate(folder, monkeypatch, measured("stock"), measured("laps-sd+", prefill_s=None))
    assert "nothing to go on with" in capsys.readouterr().out
    assert not (folder / "longrun.jsonl").exists()
