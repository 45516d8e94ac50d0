"""Settings of the service: where they come from, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from laps.service.config import ConfigError, load_config


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "laps.yaml"
    path.write_text("listen: 127.0.0.1:1111\npolicy: fcfs\nplan_ttl_s: 2\ngrace_s: 3\n")
    return path


def test_nothing_needs_to_be_set() -> None:
    config = load_config()
    assert config.listen == "127.0.0.1:50070"
    assert config.policy_spec.name == "laps-sd"
    assert not config.allow_remote


def test_flags_beat_environment_beats_file_beats_defaults(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAPS_SERVE_LISTEN", "127.0.0.1:2222")
    monkeypatch.setenv("LAPS_SERVE_PLAN_TTL_S", "4")
    config = load_config(file, {"listen": "127.0.0.1:3333"})
    assert config.listen == "127.0.0.1:3333"
    assert config.plan_ttl_s == 4.0
    assert (config.policy, config.grace_s) == ("fcfs", 3.0)
    assert config.log_format == "console"


def test_the_address_of_the_client_is_no_setting_of_the_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LAPS_ENDPOINT", "127.0.0.1:4444")
    assert load_config().listen == "127.0.0.1:50070"


def test_parameters_come_as_yaml_and_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "laps.yaml"
    path.write_text("parameters:\n  order: strict\n  quantum: 4\n")
    assert load_config(path).policy_spec.parameters == {"order": "strict", "quantum": 4}
    monkeypatch.setenv("LAPS_SERVE_PARAMETERS", '{"quantum": 2, "tolerance": 0.5}')
    assert load_config().policy_spec.parameters == {"quantum": 2, "tolerance": 0.5}


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:0", "localhost:50070", "[::1]:50070", "127.8.9.10:65535"]
)
def test_addresses_of_this_machine_are_taken(listen: str) -> None:
    assert load_config(flags={"listen": listen}).listen == listen


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:50070", "[::]:50070", "10.0.0.1:50070", "example.org:50070"]
)
def test_other_addresses_must_be_asked_for(listen: str) -> None:
    with pytest.raises(ConfigError, match="no authentication yet"):
        load_config(flags={"listen": listen})
    assert load_config(flags={"listen": listen, "allow_remote": True}).listen == listen


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("listen: nonsense\n", "listen: must be host:port"),
        ("listen: 127.0.0.1:70000\n", "listen: must be host:port"),
        ("policy: best\n", "there are: fcfs, laps-sd"),
        ("parameters: {quantum: 0}\n", "quantum"),
        ("parameters: {speed: 1}\n", "no parameter speed"),
        ("plan_ttl_s: 0\n", "plan_ttl_s: "),
        ("plan_ttl_s: .nan\n", "plan_ttl_s: "),
        ("log_format: xml\n", "log_format: "),
        ("lisen: 127.0.0.1:1\n", "lisen: "),
        ("listen: [\n", "not valid YAML"),
        ("- 1\n", "cannot be read"),
        ("\x00", "not valid YAML"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "laps.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_config(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no configuration file"):
        load_config(tmp_path / "missing.yaml")


def test_an_environment_that_makes_no_sense_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPS_SERVE_PARAMETERS", "{")
    with pytest.raises(ConfigError, match="parameters"):
        load_config()
