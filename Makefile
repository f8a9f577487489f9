# The two commands a new user needs: `make demo` and `make test`.
SHELL := /bin/bash
.DEFAULT_GOAL := help

.PHONY: help demo demo-distributed test check generate parity cuda-check clean-cache

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

demo: ## Fine-tune a model on a real two-node cluster; figures in out/demo/summary.json
	@scripts/demo.sh

demo-distributed: ## Two pods of two processes each, and accidents; figures in out/demo-distributed/summary.json
	@scripts/demo.sh distributed

test: ## Run every test, the cluster's included; ends with `N passed, N failed`
	@scripts/test.sh

check: ## Formatting, lints, licences
	@scripts/check.sh

generate: ## Write the custom resource definition from the code
	@source scripts/env.sh && cargo run --quiet -p vlft-crds --bin crdgen > crds/vlfinetunes.yaml.new \
	  && mv crds/vlfinetunes.yaml.new crds/vlfinetunes.yaml \
	  && cp crds/vlfinetunes.yaml charts/vlfinetune-operator/files/vlfinetunes.yaml

parity: ## Compare the trainer with Hugging Face transformers and print the table
	@source scripts/env.sh && scripts/libtorch.sh && scripts/venv.sh \
	  && cargo test -p trainer --test parity -- --nocapture

cuda-check: ## Compile and link the CUDA build (needs no GPU)
	@scripts/cuda-check.sh

clean-cache: ## Empty the cache of build products
	@source scripts/env.sh && echo "removing $$VLFT_CACHE" && rm -rf "$$VLFT_CACHE"
