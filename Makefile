.DEFAULT_GOAL := help
SGLANG ?= 0.5.23
ENV := .envs/sglang-$(SGLANG)
PYTHON ?= python3

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: proto
proto: ## regenerate router/laps/v1 from proto/
	$(ENV)/bin/python -m grpc_tools.protoc -I proto \
	  --python_out=router --grpc_python_out=router \
	  --plugin=protoc-gen-mypy=$(ENV)/bin/protoc-gen-mypy --mypy_out=quiet:router \
	  --plugin=protoc-gen-mypy_grpc=$(ENV)/bin/protoc-gen-mypy_grpc --mypy_grpc_out=quiet:router \
	  proto/laps/v1/*.proto
