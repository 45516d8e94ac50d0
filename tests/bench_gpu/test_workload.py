"""What is sent to the servers that are compared: prompts, arrivals, lengths and hints."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

import gpu.hardware
from gpu.contest import SECONDS, in_turn, load_lengths, policy_names, refuse_other_ways, schedule
from gpu.drawn import keep_drawn, read_drawn, requests_path
from gpu.hardware import VISIBLE, cores_of, pinned, visible_gpu
from gpu.large import replayed
from gpu.load import Job, Timing, _client, _send_all, priority
from gpu.prompts import PromptError, read_prompts
from gpu.servers import MeasurementError
from gpu.systems import SLOTS
from gpu.throughput import refuse_other_slots
from gpu.workload import (
    LOADS,
    SIGMA,
    Drawn,
    Pool,
    PoolError,
    digest,
    draw,
    draw_by_chance,
    fcfs_s,
    load_pool,
    with_rounds,
)
from service.fake_openai import FakeOpenAI
from sim.traces import Traces

TEXTS = [f"prompt {index}" for index in range(200)]


def pool_of(count: int = 200, capacity_rps: float = 20.0) -> Pool:
    """A pool whose requests take from 10 to 209 rounds of 2 tokens."""
    rounds = list(range(10, 10 + count))
    lengths = [2 * each for each in rounds]
    return Pool(digest(TEXTS), lengths, rounds, 0.01, capacity_rps, 16)


def test_prompts_are_read_from_all_files_in_an_order_of_the_seed(tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.jsonl", tmp_path / "packed.jsonl.gz"
    plain.write_text('{"prompt": "a"}\n{"prompt": "b", "source": "mine"}\n')
    packed.write_bytes(gzip.compress(b'{"prompt": "c"}\n'))
    found = read_prompts([plain, packed], seed=0)
    assert {(p.source, p.text) for p in found} == {
        ("plain", "a"),
        ("mine", "b"),
        ("packed.jsonl", "c"),
    }
    assert found == read_prompts([plain, packed], seed=0)
    plain.write_text('{"prompt": "a"}\n["no prompt"]\n')
    with pytest.raises(PromptError, match=r"plain\.jsonl:2"):
        read_prompts([plain], seed=0)


def test_a_round_has_the_same_requests_for_every_policy_and_others_than_the_next() -> None:
    assert draw(pool_of(), "0.95", 1, 20.0) == draw(pool_of(), "0.95", 1, 20.0)
    assert draw(pool_of(), "0.95", 1, 20.0) != draw(pool_of(), "0.95", 2, 20.0)
    assert draw(pool_of(), "0.95", 1, 20.0) != draw(pool_of(), "0.95-bursts", 1, 20.0)


def test_runs_of_a_load_are_of_one_length_and_beside_as_many_others() -> None:
    rows = [{"load": "0.95", "seconds": 24.0}, {"load": "0.9", "seconds": 200.0}]
    refuse_other_ways(rows, {"0.9": 200.0, "1.1": 40.0}, 1)
    with pytest.raises(MeasurementError, match=r"24 s at load 0\.95.* give --loads 0\.95:24"):
        refuse_other_ways(rows, {"0.95": 200.0}, 1)
    with pytest.raises(MeasurementError, match="give --gpus 1"):
        refuse_other_ways(rows, {"0.9": 200.0}, 4)


def test_a_round_is_run_by_so_many_at_a_time_and_each_has_another_lane_in_the_next() -> None:
    batches = list(schedule(2, ["0.95", "0.9"], ["a", "b", "c"], 2))
    assert [key for key, _ in batches] == [
        *((1, "0.95"), (1, "0.95"), (1, "0.9"), (1, "0.9")),
        *((2, "0.95"), (2, "0.95"), (2, "0.9"), (2, "0.9")),
    ]
    named = [{lane: run.policy for lane, run in batch.items()} for _, batch in batches]
    assert named[:2] == named[2:4] == [{0: "a", 1: "b"}, {0: "c"}]
    assert named[4:6] == [{0: "b", 1: "a"}, {1: "c"}]
    assert all((run.turn, run.load) == key for key, batch in batches for run in batch.values())
    alone = [batch for _, batch in schedule(1, ["0.95"], ["a", "b"], 1)]
    assert [[*batch] for batch in alone] == [[0], [0]]


@pytest.mark.parametrize("policies", ["abcde", "abcdefghi"])
@pytest.mark.parametrize("lanes", [2, 3, 4])
def test_no_policy_stays_on_its_lane(policies: str, lanes: int) -> None:
    where = {
        (run.turn, run.policy): lane
        for _, batch in schedule(4, ["0.95"], policies, lanes)
        for lane, run in batch.items()
    }
    assert len(where) == 4 * len(policies)
    assert all(where[turn, one] != where[turn + 1, one] for turn in (1, 2, 3) for one in policies)


def test_each_lane_has_a_gpu_and_cores_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu.hardware, "TOPOLOGY", tmp_path / "none")
    monkeypatch.setattr(gpu.hardware, "GPU", False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 5, 7, 8})
    assert [cores_of(lane, 2) for lane in range(2)] == [{2, 3}, {5, 7}]
    with pytest.raises(MeasurementError, match="5 cores"):
        cores_of(0, 6)
    # The threads of a physical core stay together.
    for core in (2, 3, 5, 7, 8):
        path = tmp_path / f"cpu{core}" / "topology" / "thread_siblings_list"
        path.parent.mkdir(parents=True)
        path.write_text(f"{core % 5},{core % 5 + 5}\n")
    monkeypatch.setattr(gpu.hardware, "TOPOLOGY", tmp_path)
    assert [cores_of(lane, 2) for lane in range(2)] == [{2, 5}, {7, 3}]
    assert visible_gpu(1) == {}, "there is none on this machine"
    monkeypatch.setattr(gpu.hardware, "GPU", True)
    monkeypatch.delenv(VISIBLE, raising=False)
    assert visible_gpu(1) == {VISIBLE: "1"}
    monkeypatch.setenv(VISIBLE, "4,6")
    assert visible_gpu(1) == {VISIBLE: "6"}


def test_what_is_started_meanwhile_stays_on_its_cores() -> None:
    mine = os.sched_getaffinity(0)
    one = {min(mine)}
    told = "import os; print(*os.sched_getaffinity(0))"
    with pinned(one):
        process = subprocess.Popen([sys.executable, "-c", told], stdout=subprocess.PIPE, text=True)
    assert os.sched_getaffinity(0) == mine
    assert {int(core) for core in process.communicate()[0].split()} == one


def test_throughput_is_of_servers_with_the_same_slots() -> None:
    refuse_other_slots(
        [{"mode": "stock", "resident": 48}, {"mode": "remote", "resident": 48 * SLOTS}]
    )
    with pytest.raises(MeasurementError, match=r"'remote' with 48 slots.* another --out"):
        refuse_other_slots([{"mode": "remote", "resident": 48}])


def test_each_turn_begins_with_another_one_and_every_second_goes_backwards() -> None:
    turns = ["".join(in_turn("ABCD", turn)) for turn in range(1, 7)]
    assert turns == ["ABCD", "BADC", "CDAB", "DCBA", "ABCD", "BADC"]
    assert "".join(in_turn("ABC", 2)) == "BAC"


def test_a_queue_that_is_served_in_order_waits_for_the_first_server_that_is_free() -> None:
    # Two servers at 0.1 s a round, for requests of 10, 20 and 30 rounds.
    pool = Pool("", [1, 1, 1], [10, 20, 30], 0.01, 1.0, 2)
    jobs = [Job(n, n, due_s, 1, 1) for n, due_s in enumerate((0.0, 0.5, 0.6))]
    started_s, done_s = fcfs_s(pool, jobs)
    assert started_s.tolist() == pytest.approx([0.0, 0.5, 1.0])
    assert done_s.tolist() == pytest.approx([1.0, 2.5, 4.0])


def latency_s(pool: Pool, jobs: list[Job], which: range) -> float:
    """Return the mean latency of some, first come, first served."""
    _, done_s = fcfs_s(pool, jobs)
    return float(np.mean([done_s[index] - jobs[index].due_s for index in which]))


def pool_of_recorded(capacity_rps: float = 20.0) -> Pool:
    """A pool whose lengths spread as those of real answers do."""
    rounds = np.random.default_rng(0).exponential(100.0, 300).round().astype(int) + 1
    return Pool("", (2 * rounds).tolist(), rounds.tolist(), 0.01, capacity_rps, 16)


@pytest.mark.parametrize("load", ["0.95", "0.95-bursts", "0.9"])
def test_a_short_run_is_as_a_long_one_would_be(load: str) -> None:
    pool = pool_of_recorded()
    longer = draw_by_chance(pool, load, np.random.default_rng(0), 50_000.0)
    long_s = latency_s(pool, longer, range(len(longer)))
    runs = [draw(pool, load, turn, 20.0) for turn in range(20)]
    short_s = [latency_s(pool, drawn.jobs, drawn.counted) for drawn in runs]
    assert np.mean(short_s) == pytest.approx(long_s, rel=0.12)
    without = [Drawn(drawn.jobs[drawn.backlog :]) for drawn in runs]
    empty_s = [latency_s(pool, drawn.jobs, drawn.counted) for drawn in without]
    assert np.mean(empty_s) < 0.97 * np.mean(short_s), "from an empty server it would not be"


def test_a_run_begins_with_those_that_are_there_and_does_not_count_them() -> None:
    drawn = draw(pool_of(), "0.95-bursts", 1, 20.0)
    due_s = [job.due_s for job in drawn.jobs]
    assert drawn.backlog > 16
    assert due_s[: drawn.backlog] == [0.0] * drawn.backlog
    assert np.all(np.diff(due_s) >= 0.0)
    assert [job.number for job in drawn.jobs] == list(range(len(drawn.jobs)))
    arriving = len(drawn.jobs) - drawn.backlog
    assert arriving == pytest.approx(20.0 * 0.95 * 20.0, rel=0.01)
    assert drawn.counted.start == drawn.backlog + arriving // 10
    assert len(drawn.jobs) - drawn.counted.stop == pytest.approx(arriving / 10, abs=1)


def test_those_that_run_when_a_run_begins_have_the_rest_left() -> None:
    pool = pool_of()
    asked = Job(number=7, prompt=100, due_s=3.0, max_tokens=220, predicted_tokens=110)
    rest = with_rounds(pool, asked, 29.7)
    assert (pool.rounds[rest.prompt], rest.max_tokens, rest.due_s) == (30, 60, 0.0)
    assert rest.predicted_tokens == 30, "its hint errs as that of the whole"


def test_overload_begins_with_nobody() -> None:
    drawn = draw(pool_of(), "1.1", 1, 20.0)
    assert drawn.backlog == 0
    assert len(drawn.jobs) == 20 * 1.1 * 20


@pytest.mark.parametrize("load", LOADS)
def test_a_run_of_few_requests_has_some(load: str) -> None:
    for capacity_rps in (0.05, 0.3):
        drawn = draw(pool_of(capacity_rps=capacity_rps), load, 1, 4.0)
        assert len(drawn.jobs) > drawn.backlog
        assert drawn.counted.stop <= len(drawn.jobs)


def test_what_was_sent_is_kept(tmp_path: Path) -> None:
    path = requests_path(tmp_path, "compare")
    assert read_drawn(path, pool_of()) == {}
    sent = {(turn, "0.95-bursts"): draw(pool_of(), "0.95-bursts", turn, 20.0) for turn in (1, 2)}
    for key, drawn in sent.items():
        keep_drawn(path, key, drawn)
    assert read_drawn(path, pool_of()) == sent


@pytest.mark.parametrize("load", LOADS)
def test_the_work_that_arrives_is_the_load(load: str) -> None:
    pool = pool_of()
    jobs = draw_by_chance(pool, load, np.random.default_rng(1), 2000.0)
    work_s = sum(pool.rounds[job.prompt] for job in jobs) / (
        pool.capacity_rps * float(np.mean(pool.rounds))
    )
    # The last of very many arrivals is about when it should be; bursts are less sure of it.
    assert work_s / jobs[-1].due_s == pytest.approx(LOADS[load].of_capacity, rel=0.05)
    assert [job.number for job in jobs] == list(range(len(jobs)))
    assert all(job.max_tokens == pool.output_tokens[job.prompt] for job in jobs)
    gaps = np.diff([job.due_s for job in jobs])
    assert gaps.std() / gaps.mean() == pytest.approx(3.0 if "bursts" in load else 1.0, rel=0.1)


def test_hints_err_by_the_spread_that_is_stated() -> None:
    jobs = [job for job in draw(pool_of(), "0.9", 1, 400.0).jobs if job.max_tokens > 100]
    errors = np.log([job.predicted_tokens / job.max_tokens for job in jobs])
    assert errors.std() == pytest.approx(SIGMA, rel=0.05)
    assert errors.mean() == pytest.approx(0.0, abs=0.05)


def test_a_prediction_twice_as_long_has_the_threshold_less_priority() -> None:
    short, long = (Job(0, 0, 0.0, 10, tokens) for tokens in (100, 200))
    assert priority(short) - priority(long) == 10


def test_what_is_compared_is_checked_before_a_server_starts() -> None:
    assert load_lengths("0.95-bursts:200,0.7") == {"0.95-bursts": 200.0, "0.7": SECONDS}
    assert policy_names("stock,laps-sd:order=strict,oracle")[1] == "laps-sd:order=strict"
    for parse, text in (
        (load_lengths, "0.95,0.8:40"),
        (policy_names, "stock,laps-sd:orders=strict"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=r"0\.8|orders"):
            parse(text)


@pytest.mark.parametrize("text", ["0.95:nan", "0.95:inf", "0.95:0", "0.9:-3", "0.9,0.9:40"])
def test_a_load_has_one_length_and_it_is_a_time(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"load 0\.9"):
        load_lengths(text)


def test_a_pool_of_other_prompts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pool.json"
    pool_of().save(path)
    assert load_pool(path, TEXTS, 16) == pool_of()
    with pytest.raises(PoolError, match="remove it"):
        load_pool(path, [*TEXTS, "one more"], 16)
    with pytest.raises(PoolError, match="--running"):
        load_pool(path, TEXTS, 8)


def test_a_recording_gives_lengths_and_the_rounds_that_they_take() -> None:
    # Outputs have 1 + (2 + 1 + 4) = 8 and 1 + 4 + 4 = 9 tokens.
    traces = Traces(np.array([1, 0, 3, 3, 3], np.uint8), np.array([0, 3, 5]), 3)
    assert replayed(traces, 400) == ([8, 9], [3, 2])
    # The fourth token comes with the second round of the one, the first of the other.
    assert replayed(traces, 4) == ([4, 4], [2, 1])


async def test_requests_carry_their_length_hint_and_id_and_failures_are_told() -> None:
    async with FakeOpenAI() as server:
        job = Job(number=3, prompt=7, due_s=0.0, max_tokens=12, predicted_tokens=8)
        [timing] = await _send_all(server.url, "run", [(job, "hello")], 0.0, 1)
        [body] = server.bodies
        assert body["rid"] == "run-3-7"
        assert (body["max_tokens"], body["ignore_eos"], body["priority"]) == (12, True, -30)
        assert body["custom_params"] == {"laps": {"predicted_tokens": 8}}
        assert json.dumps(body["messages"]).count("hello") == 1
        assert timing.sent_s <= timing.first_s <= timing.done_s
        server.refusal = (500, "no")
        [failed] = await _send_all(server.url, "run", [(job, "hello")], 0.0, 1)
        assert isinstance(failed, Timing)
        assert failed.tokens == 0


async def test_a_request_does_not_go_over_a_connection_that_may_be_closed_meanwhile() -> None:
    async with FakeOpenAI() as server, _client(server.url) as client:
        for _ in range(2):
            await client.post("/chat/completions", cast_to=httpx.Response, body={"rid": "any"})
        assert len(set(server.peers)) == len(server.peers) == 2


async def test_clients_give_up_when_nothing_listens_any_more() -> None:
    jobs = [Job(number, number, 0.0, max_tokens=12, predicted_tokens=8) for number in range(2)]
    async with FakeOpenAI() as server:
        url = server.url
    with pytest.raises(ConnectionError, match=f"run-0-0: nothing listens at {url}"):
        await _send_all(url, "run", [(job, "hello") for job in jobs], 0.0, 1)
