"""Compare policies under open-loop load, in turns on one machine, against stock SGLang.

    python -m gpu.compare --model MODEL --draft HEAD --prompts A.jsonl --out DIR

Servers for stock SGLang, stock with priority, and one under the service are up side by side; one at
a time has load. A first pass on stock finds how long each prompt's answer is, how many verify
rounds it takes, and how many requests a second a full server answers. From then on every request
gets exactly its length, so that all policies do the same work, and loads are shares of what stock
can do. Each run is a line in DIR/compare.jsonl, written when it is done; what is there is not run
again. Remove DIR/compare-pool.json to make the first pass anew.
"""

from __future__ import annotations

from gpu.contest import add_arguments, contest, shorten
from gpu.first_pass import measure_pool, natural_lengths
from gpu.load import Clients
from gpu.names import ORACLE, STOCK, STOCK_PRIORITY
from gpu.prompts import read_prompts
from gpu.servers import arguments, tapped
from gpu.systems import System
from gpu.workload import Pool

POLICIES = (
    *(STOCK, STOCK_PRIORITY, "fcfs", "srtf", "mlfq"),
    *("laps-sd", "laps-sd:order=strict", "laps-sd+", ORACLE),
)
PROMPTS = 512
SHORT_PROMPTS = 12
SEED = 0


def main() -> None:
    parser = arguments("gpu.compare", __doc__)
    add_arguments(parser, POLICIES)
    options = parser.parse_args()
    shorten(options)
    prompts = read_prompts(options.prompts, SEED)[: SHORT_PROMPTS if options.short else PROMPTS]
    texts = [prompt.text for prompt in prompts]

    def make_pool(stock: System, clients: Clients) -> Pool:
        lengths, rounds = natural_lengths(stock, prompts, options.running, options.short)
        return measure_pool(stock, clients, texts, lengths, rounds, options.running)

    contest(options, "compare", texts, tapped(), make_pool)


if __name__ == "__main__":
    main()
