"""The `laps` command against a service that runs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from laps.cli.main import app
from laps.client import Hints, Phase
from laps.service.app import Service
from service.fake_openai import FakeOpenAI
from service.fake_worker import FakeWorker, arrival


async def laps(service: Service, *arguments: str) -> Result:
    """Run the command in a thread: the service needs this one."""
    environment = {"LAPS_ENDPOINT": service.address}
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments, env=environment)
    assert "Traceback" not in result.output
    return result


async def json_of(service: Service, *arguments: str) -> Any:
    result = await laps(service, *arguments, "--output", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def test_workers(service: Service) -> None:
    assert "no worker is attached" in (await laps(service, "workers")).stdout
    async with FakeWorker(service.address) as worker:
        await worker.attach([arrival(1, phase=Phase.RUNNING), arrival(2)])
        _, header, row = (await laps(service, "workers")).stdout.splitlines()
        assert header.split()[:3] == ["WORKER", "STATE", "MODEL"]
        assert "(ms)" in header
        assert row.split()[:5] == ["w0", "attached", "model", "EAGLE", "laps-sd"]
        assert "1/2" in row
        [shown] = await json_of(service, "workers")
        assert (shown["worker_id"], shown["running"], shown["waiting"]) == ("w0", 1, 1)
        assert shown["policy"] == {"name": "laps-sd", "parameters": {}}


async def test_queues(service: Service) -> None:
    async with FakeWorker(service.address, "a") as a, FakeWorker(service.address, "b") as b:
        await a.attach([arrival(n) for n in range(1, 12)])
        await b.attach()
        lines = (await laps(service, "queues")).stdout.splitlines()
        assert lines[0].split()[:2] == ["WORKER", "QUEUE"]
        assert len(lines) == 5
        assert "r1 r2 r3 and 8 more" in lines[2]
        queues = await json_of(service, "queues", "--worker", "a")
        assert [queue["name"] for queue in queues] == ["starving", "one scale"]
        assert len(queues[1]["rids"]) == 11


async def test_requests(service: Service) -> None:
    async with FakeWorker(service.address) as worker:
        await worker.attach()
        assert "no requests" in (await laps(service, "requests")).stdout
        await worker.report(1, arrived=(arrival(1, hints=Hints(tenant="acme")), arrival(2)))
        await worker.report(2, finished=(2,))
        _, header, row = (await laps(service, "requests")).stdout.splitlines()
        assert header.split()[:3] == ["REQUEST", "WORKER", "PHASE"]
        assert "(tokens/round)" in header
        assert row.split()[:4] == ["r1", "w0", "waiting", "acme"]
        assert len((await laps(service, "requests", "--departed")).stdout.splitlines()) == 4
        shown = await json_of(service, "requests", "--departed")
        assert [(request["rid"], request["phase"]) for request in shown] == [
            ("r1", "waiting"),
            ("r2", "finished"),
        ]
        assert shown[0]["hints"]["tenant"] == "acme"


async def test_names_that_clients_choose_cannot_steer_the_terminal(service: Service) -> None:
    async with FakeWorker(service.address) as worker:
        await worker.attach([arrival(1, rid="[red]a\x1b[2J", hints=Hints(tenant="b\nc"))])
        table = (await laps(service, "requests")).stdout
        assert "\x1b" not in table
        assert "[red]a" in table
        assert len(table.splitlines()) == 3


async def test_explain(service: Service) -> None:
    async with FakeWorker(service.address) as worker:
        await worker.attach([arrival(1), arrival(2), arrival(3)])
        shown = (await laps(service, "explain", "r3")).stdout
        explained = await json_of(service, "explain", "r3")
        assert explained["reason"]
        assert explained["reason"] in shown
        assert explained["key"]
        assert all(f"key: {part['name']}" in shown for part in explained["key"])
        assert (explained["queue"], explained["rank"]) == ("one scale", 2)
        assert explained["request"]["rid"] == "r3"
        missing = await laps(service, "explain", "r4")
        assert missing.exit_code == 1
        assert "'r4'" in missing.stderr


async def test_policy(service: Service) -> None:
    assert "no worker is attached" in (await laps(service, "policy")).stdout
    assert "set to laps-sd" in (await laps(service, "policy", "laps-sd")).stdout
    async with FakeWorker(service.address) as worker:
        await worker.attach()
        assert "laps-sd" in (await laps(service, "policy")).stdout
        settings = ("--set", "order=strict", "--set", "quantum=4", "--set", "tolerance=0.5")
        shown = (await laps(service, "policy", "laps-sd", *settings)).stdout
        assert '{"order": "strict", "quantum": 4, "tolerance": 0.5}' in shown
        [status] = await json_of(service, "workers")
        assert status["policy"]["parameters"] == {"order": "strict", "quantum": 4, "tolerance": 0.5}
        refused = await laps(service, "policy", "best")
        assert refused.exit_code == 1
        assert "there are: fcfs, laps-sd" in refused.stderr
        assert (await laps(service, "policy", "--set", "quantum=4")).exit_code == 2
        assert (await laps(service, "policy", "fcfs", "--set", "quantum")).exit_code == 2


async def test_generate_streams_to_standard_output(service: Service, openai: FakeOpenAI) -> None:
    refused = await laps(service, "generate", "Count.")
    assert refused.exit_code == 1
    assert "no worker is attached" in refused.stderr
    async with FakeWorker(service.address, http_url=openai.url) as worker:
        await worker.attach()
        assert (await laps(service, "generate", "Count.")).stdout == "one two three\n"
        hints = ("--tenant", "acme", "--predicted-tokens", "3")
        options = ("--plain", "--max-tokens", "3", "--temperature", "0", "--rid", "mine", *hints)
        assert (await laps(service, "generate", "Count.", *options)).stdout == "one two three\n"
        openai.finish_reason = "abort"
        aborted = await laps(service, "generate", "Count.")
        assert (aborted.exit_code, aborted.stdout) == (1, "one two three\n")
    assert openai.bodies[0]["messages"] == [{"role": "user", "content": "Count."}]
    assert openai.bodies[1]["prompt"] == "Count."
    assert openai.bodies[1]["rid"] == "mine"
    assert (openai.bodies[1]["max_tokens"], openai.bodies[1]["temperature"]) == (3, 0.0)
    assert openai.bodies[1]["custom_params"] == {"laps": {"tenant": "acme", "predicted_tokens": 3}}


async def test_cancel(service: Service, openai: FakeOpenAI) -> None:
    async with FakeWorker(service.address, http_url=openai.url) as worker:
        await worker.attach([arrival(1)])
        assert "r1 is being aborted on w0" in (await laps(service, "cancel", "r1")).stdout
        assert (await laps(service, "cancel", "r2")).exit_code == 1
    assert openai.aborted == ["r1"]


async def test_the_endpoint_flag_goes_before_the_environment(
    service: Service, nowhere: str
) -> None:
    assert (await laps(service, "workers")).exit_code == 0
    unreachable = await laps(service, "workers", "--endpoint", nowhere)
    assert unreachable.exit_code == 3
    assert unreachable.stderr == f"laps: no service at {nowhere}: start one with `laps serve`\n"


async def test_wrong_usage(service: Service, tmp_path: Path) -> None:
    for arguments in (
        ("nonsense",),
        ("workers", "--output", "xml"),
        ("explain",),
        ("serve", "--listen", "0.0.0.0:50070"),
        ("serve", "--policy", "best"),
        ("serve", "--config", str(tmp_path / "missing.yaml")),
    ):
        result = await laps(service, *arguments)
        assert result.exit_code == 2, arguments
        assert result.stderr


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.startswith("laps 0.")


@pytest.mark.parametrize(
    "command", ["serve", "workers", "queues", "requests", "explain", "policy", "generate", "cancel"]
)
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout
