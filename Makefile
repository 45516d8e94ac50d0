# Two environments, one a supported version of SGLang; the newest one is the default.
SGLANG ?= 0.5.23
OLDEST := 0.5.17
PYTHON ?= python3

ENV := .envs/sglang-$(SGLANG)
# The test bed goes before everything else, and OpenMP's threads do not spin.
PYTEST = PYTHONPATH=tests/testbed/site OMP_NUM_THREADS=1 $(1)/bin/python -m pytest
PROTOC = $(ENV)/bin/python -m grpc_tools.protoc -I proto \
	--python_out=$(1) --grpc_python_out=$(1) \
	--plugin=protoc-gen-mypy=$(ENV)/bin/protoc-gen-mypy --mypy_out=quiet:$(1) \
	--plugin=protoc-gen-mypy_grpc=$(ENV)/bin/protoc-gen-mypy_grpc --mypy_grpc_out=quiet:$(1) \
	proto/laps/v1/*.proto

# A Python that has SGLang, this package and a GPU runs the demo as it is; else the CPU test bed does.
HAS_GPU := $(PYTHON) -c 'import laps_sglang, sglang, torch; assert torch.cuda.is_available()' 2>/dev/null
MODEL ?= .models/smollm2-135m
DRAFT ?= .models/smollm2-135m-eagle
SGLANG_ARGS ?=
DEMO = --model $(MODEL) --draft $(DRAFT) --sglang-args '$(SGLANG_ARGS)'

# The prompts, as JSON lines; the demo's are too few to measure anything.
PROMPTS ?= bench/demo/requests.jsonl
GPU ?=
OUT ?= build/gpu$(if $(GPU),-short)
GPUS ?= 1
GPU_BENCH = --model $(MODEL) --draft $(DRAFT) --prompts $(PROMPTS) --sglang-args='$(SGLANG_ARGS)' \
	--out $(OUT) --gpus $(GPUS) $(GPU)

# Without bytecode on disk every process compiles SGLang afresh, and a server takes minutes to start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## FCFS against LAPS-SD on a real SGLang worker with EAGLE (does all its set-up)
	@$(MAKE) --no-print-directory demo-run

.PHONY: up
up: ## start the demo's system and keep it running until Ctrl-C
	@$(MAKE) --no-print-directory demo-up

demo-%:
	@if $(HAS_GPU); then \
	  { [ -e $(MODEL) ] || $(PYTHON) tests/testbed/models.py smollm2; } && \
	  PYTHONPATH=tests:bench:$$PYTHONPATH exec $(PYTHON) -m demo $* $(DEMO); \
	else $(MAKE) --no-print-directory setup && exec env PYTHONPATH=tests:bench $(ENV)/bin/python -m demo $* $(DEMO); fi

.PHONY: setup
setup: ## make the CPU environment and the demo's models (no-op when they are there)
	@$(PYTHON) tests/testbed/install.py $(SGLANG)
	@$(ENV)/bin/python tests/testbed/models.py smollm2

.PHONY: test
test: ## everything: lint, types, generated code, all tests (the main ones also on the oldest SGLang)
	@$(MAKE) --no-print-directory test-setup lint proto-check
	$(call PYTEST,$(ENV)) tests --ignore tests/engine --ignore tests/e2e
	$(call PYTEST,$(ENV)) tests/engine
	$(call PYTEST,.envs/sglang-$(OLDEST)) tests/engine
	$(call PYTEST,$(ENV)) tests/e2e
	$(call PYTEST,.envs/sglang-$(OLDEST)) tests/e2e -k 'test_faults or eagle'

.PHONY: test-setup
test-setup: setup
	@$(PYTHON) tests/testbed/install.py $(OLDEST)
	@$(ENV)/bin/python tests/testbed/models.py tiny tiny-draft-0.05 tiny-draft-0.2 tiny-eagle tiny-eagle3

.PHONY: bench-sim
bench-sim: setup ## simulate what is missing in bench/results, and write docs/results.md (an hour; SIM=--short: minutes)
	PYTHONPATH=bench OMP_NUM_THREADS=1 $(ENV)/bin/python -m sim run all $(SIM)
	PYTHONPATH=bench $(ENV)/bin/python -m sim page $(SIM)

.PHONY: bench-step
bench-step: setup ## what the plugin adds to a step of SGLang, embedded and remote (10 minutes)
	PYTHONPATH=tests/testbed/site:tests:bench OMP_NUM_THREADS=1 $(ENV)/bin/python -W ignore -m step

.PHONY: bench-engine
bench-engine: setup ## time and memory of the engine's decisions, to a million requests (minutes)
	PYTHONPATH=bench OMP_NUM_THREADS=1 $(ENV)/bin/python -m overhead

.PHONY: bench-gpu
bench-gpu: ## SGLang on a GPU, stock against patched, into OUT (hours, less with GPUS=N; GPU=--short: minutes)
	@if $(HAS_GPU); then \
	  PYTHONPATH=tests:bench:$$PYTHONPATH exec $(PYTHON) -m gpu $(GPU_BENCH); \
	elif [ '$(GPU)' = --short ]; then \
	  $(MAKE) --no-print-directory setup && \
	  exec env PYTHONPATH=tests:bench OMP_NUM_THREADS=1 $(ENV)/bin/python -m gpu $(GPU_BENCH); \
	else \
	  echo "bench-gpu: $(PYTHON) needs SGLang, this package and a GPU (GPU=--short: a dry run on the CPU)"; \
	  exit 1; \
	fi

.PHONY: lint
lint: ## format, lint and strict types, without changing anything
	$(ENV)/bin/ruff format --check .
	$(ENV)/bin/ruff check .
	$(ENV)/bin/mypy

.PHONY: format
format: ## format the code and mend what the linter can
	$(ENV)/bin/ruff format .
	$(ENV)/bin/ruff check --fix .

.PHONY: proto
proto: ## generate router/laps/v1 from proto/
	$(call PROTOC,router)

.PHONY: proto-check
proto-check: ## fail if router/laps/v1 is not what proto/ generates
	@rm -rf .proto && mkdir -p .proto && $(call PROTOC,.proto)
	@diff -r -x __init__.py -x __pycache__ .proto/laps/v1 router/laps/v1 \
	  || { echo "router/laps/v1 has drifted from proto/: run 'make proto'"; exit 1; }
	@rm -rf .proto

.PHONY: clean
clean: ## remove environments, models and everything else that was made
	rm -rf .envs .models .demo .proto .mypy_cache .pytest_cache .ruff_cache .hypothesis
