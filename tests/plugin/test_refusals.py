"""What the plugin does not support it refuses, and names."""

from __future__ import annotations

from typing import Any

import pytest

from laps.engine.types import Capacity
from laps_sglang import compat
from laps_sglang.compat import Target, UnsupportedEngineError, installed_engine, unapplied
from laps_sglang.modes import ALGORITHMS, REFUSED, refuse_unsupported
from laps_sglang.plugin import advise

DEFAULTS: dict[str, Any] = {
    "disaggregation_mode": "null",
    "pp_size": 1,
    "enable_dp_attention": False,
    "schedule_policy": "fcfs",
    "max_running_requests": 48,
    "dllm_algorithm": None,
}


def test_the_default_modes_are_supported() -> None:
    refuse_unsupported(DEFAULTS, None)
    refuse_unsupported(DEFAULTS, 48)


def test_a_server_without_room_for_paused_requests_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    advise(Capacity(max_running=16, max_resident=256, kv_tokens=1000))
    assert not caplog.text
    advise(Capacity(max_running=48, max_resident=48, kv_tokens=1000))
    assert "(48)" in caplog.text
    assert "--max-running-requests" in caplog.text


@pytest.mark.parametrize("setting", REFUSED)
@pytest.mark.parametrize("value", ["other", 2])
def test_an_unsupported_mode_is_refused_by_name(setting: str, value: Any) -> None:
    flag = "--" + setting.replace("_", "-")
    with pytest.raises(UnsupportedEngineError, match=f"server: {flag} {value}: [A-Za-z].*[^.]\\.$"):
        refuse_unsupported(DEFAULTS | {setting: value}, None)


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "eagle3", None])
def test_tested_algorithms_are_supported(algorithm: str | None) -> None:
    refuse_unsupported(DEFAULTS | {"speculative_algorithm": algorithm}, None)


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(UnsupportedEngineError, match=r"--pp-size.*; --schedule-policy"):
        refuse_unsupported(DEFAULTS | {"pp_size": 2, "schedule_policy": "lof"}, None)


def test_more_running_than_resident_is_refused() -> None:
    with pytest.raises(UnsupportedEngineError, match="--laps-max-running 49 above"):
        refuse_unsupported(DEFAULTS, 49)


def test_another_version_of_sglang_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "version", lambda _: "0.6.0")
    with pytest.raises(UnsupportedEngineError, match=r"does not support SGLang 0\.6\.0"):
        installed_engine()


@pytest.mark.engine
def test_a_renamed_method_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang.srt.managers.scheduler import Scheduler

    installed_engine()
    monkeypatch.delattr(Scheduler, "update_running_batch")
    with pytest.raises(
        UnsupportedEngineError, match=r"Scheduler\.update_running_batch does not exist"
    ):
        installed_engine()


def test_a_changed_signature_is_named() -> None:
    target = Target("json.dumps", ("obj", "indentation"))
    assert target.problem() == "json.dumps has no parameter indentation"
    assert Target("json.dumps", ("obj", "indent")).problem() is None
    assert Target("json.no_such").problem() == "json.no_such does not exist"
    assert Target("no_such_module.f").problem() == "no_such_module.f does not exist"


@pytest.mark.engine
def test_hooks_that_sglang_did_not_apply_are_found() -> None:
    assert unapplied(["no.such.target"]) == ["no.such.target"]
