"""The plugin's flags and environment."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from laps_sglang import compat
from laps_sglang.plugin import check_flags
from laps_sglang.settings import Settings, SettingsError, add_flags, read_settings


def test_off_unless_asked_for() -> None:
    assert read_settings({}) is None
    assert read_settings({"SGLANG_LAPS_EMBEDDED": "0"}) is None
    # The address that the `laps` command uses must not patch a server.
    assert read_settings({"LAPS_ENDPOINT": "127.0.0.1:50070"}) is None


def test_settings_from_the_environment() -> None:
    assert read_settings({"SGLANG_LAPS_EMBEDDED": "1"}) == Settings(None, None, "laps-sd")
    environment = {
        "SGLANG_LAPS_ENDPOINT": "h:1",
        "SGLANG_LAPS_MAX_RUNNING": "4",
        "SGLANG_LAPS_POLICY": "fcfs",
        "SGLANG_LAPS_LENGTH_MODEL": "lengths.npz",
    }
    assert read_settings(environment) == Settings("h:1", 4, "fcfs", Path("lengths.npz"))


@pytest.mark.parametrize("cap", ["0", "-1", "four", "1.5", ""])
def test_a_cap_that_is_no_number_is_refused(cap: str) -> None:
    with pytest.raises(SettingsError, match=r"--laps-max-running .* at least 1"):
        read_settings({"SGLANG_LAPS_EMBEDDED": "1", "SGLANG_LAPS_MAX_RUNNING": cap})


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"MAX_RUNNING": "4"}, "need --laps-endpoint or --laps-embedded"),
        ({"POLICY": "fcfs"}, "need --laps-endpoint or --laps-embedded"),
        ({"LENGTH_MODEL": "lengths.npz"}, "need --laps-endpoint or --laps-embedded"),
        ({"EMBEDDED": "true"}, "must be 0 or 1"),
        ({"EMBEDDED": "1", "ENDPOINT": "h:1"}, "not both"),
        ({"ENDPOINT": "nonsense"}, "must be HOST:PORT"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    environment: dict[str, str], complaint: str
) -> None:
    with pytest.raises(SettingsError, match=complaint):
        read_settings({f"SGLANG_LAPS_{name}": value for name, value in environment.items()})


def test_flags_reach_the_environment_and_not_sglang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    parser = argparse.ArgumentParser()
    add_flags(None, parser)
    arguments = parser.parse_args(
        ["--laps-endpoint", "h:1", "--laps-embedded", "--laps-max-running", "3"]
    )
    # SGLang builds its ServerArgs from the namespace, and knows none of our fields.
    assert vars(arguments) == {}
    assert os.environ == {
        "SGLANG_LAPS_ENDPOINT": "h:1",
        "SGLANG_LAPS_EMBEDDED": "1",
        "SGLANG_LAPS_MAX_RUNNING": "3",
    }


@pytest.mark.parametrize(
    ("given", "sglang", "complaint"),
    [
        ({"MAX_RUNNING": "0"}, {}, "--laps-max-running .* at least 1, not '0'"),
        ({"POLICY": "best"}, {}, "no policy 'best'; there are: fcfs"),
        ({"ENDPOINT": "h:1"}, {}, "not both"),
        ({"LENGTH_MODEL": __file__}, {}, "test_settings.py is no model of lengths"),
        ({"MAX_RUNNING": "9"}, {"max_running_requests": 8}, "--laps-max-running 9 above"),
        ({}, {"schedule_policy": "lpm"}, "--schedule-policy lpm: it reorders"),
    ],
)
def test_flags_are_refused_where_they_are_parsed(
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, str],
    sglang: dict[str, object],
    complaint: str,
) -> None:
    """In the launching process, in one sentence: before any scheduler process is started."""
    monkeypatch.setattr(compat, "version", lambda _: compat.SUPPORTED[-1])
    for name, value in {"EMBEDDED": "1", **given}.items():
        monkeypatch.setenv(f"SGLANG_LAPS_{name}", value)
    with pytest.raises(SystemExit, match=f"sglang-laps refuses to start: .*{complaint}"):
        check_flags(object, argparse.Namespace(**sglang))


def test_flags_that_are_fine_or_absent_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "version", lambda _: compat.SUPPORTED[-1])
    check_flags(object, argparse.Namespace(schedule_policy="lpm"))
    monkeypatch.setenv("SGLANG_LAPS_EMBEDDED", "1")
    check_flags(object, argparse.Namespace(schedule_policy="fcfs", max_running_requests=8))
