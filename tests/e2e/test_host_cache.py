"""`--enable-hierarchical-cache`: what a demoted request had computed survives in host memory."""

from __future__ import annotations

import re
from pathlib import Path

from tokenizers import Tokenizer

from e2e.fake_random_service import fake_random_service
from e2e.load import ask_all
from e2e.servers import EAGLE, OVERLAP, assert_clean, flush, laps_block, sglang, until
from e2e.stock import Stock, jobs_of
from testbed.launch import MODELS

FLAGS = (
    "--enable-hierarchical-cache",
    *("--hicache-ratio", "4"),
    # The one way of copying that the test bed has for a CPU.
    *("--hicache-io-backend", "direct"),
    *("--hicache-mem-layout", "layer_first"),
    # The GPU's pool holds a third of the load, the host's all of it.
    *("--max-total-tokens", "500"),
    *("--max-running-requests", "16"),
    *("--laps-max-running", "3"),
)


def test_demoted_eagle_requests_survive_in_host_memory(stock: Stock, tmp_path: Path) -> None:
    load = jobs_of(EAGLE)
    with (
        fake_random_service() as address,
        sglang(
            EAGLE, tmp_path / "sglang.log", *FLAGS, "--laps-endpoint", address, loop=OVERLAP
        ) as server,
    ):
        assert until(lambda: flush(server))
        before = computed(server.log_path)
        assert ask_all(server.base_url, load) == stock.outputs(EAGLE)
        assert_clean(server)
        demotions = laps_block(server)["demotions"]
        tokens = computed(server.log_path) - before
    tokenizer = Tokenizer.from_file(str(MODELS / EAGLE.model / "tokenizer.json"))
    prompts = sum(1 + len(tokenizer.encode(job.prompt).ids) for job in load)
    assert demotions > 20
    # A request that comes back computes its newest tokens anew, and none that it had before.
    assert tokens <= prompts + 2 * demotions


def computed(log: Path) -> int:
    """Tokens that SGLang has computed in prefills, as it says in its log."""
    return sum(int(tokens) for tokens in re.findall(r"#new-token: (\d+)", log.read_text()))
