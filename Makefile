# Every command of the project. CI calls these and nothing else.

CARGO ?= cargo
# Where `make run` keeps documents.
DATA ?= data

.PHONY: help run build test lint fmt proto soak load clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

run: ## build and serve on http://127.0.0.1:8080, documents in ./data
	$(CARGO) run --release -p cowrite-server --bin cowrite -- serve --data $(DATA)

build: ## build everything for release
	$(CARGO) build --release --workspace

test: ## run all tests
	$(CARGO) build --workspace --all-targets
	$(CARGO) test --workspace

lint: proto ## formatting, lints, documentation, the wire
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

proto: proto/node_modules ## lint the .proto files and compare them with the committed baseline
	cd proto && npm run --silent lint && npm run --silent breaking

# One package, pinned in package.json, which pins its own. No lock file: npm cannot write one that is
# complete for platforms whose packages its registry does not have, and refuses one that is not.
proto/node_modules: proto/package.json
	cd proto && npm install --no-package-lock --no-audit --no-fund --ignore-scripts
	@touch proto/node_modules

fmt: ## format the code
	$(CARGO) fmt --all

soak: ## a thousand kill -9 rounds, and convergence over many seeds
	COWRITE_KILL_ROUNDS=1000 $(CARGO) test -p cowrite-tests --test durability -- --nocapture
	COWRITE_SEEDS=500 $(CARGO) test -p cowrite-tests --test convergence -- --nocapture

load: ## the table of docs/performance.md; TRACE=FILE adds the large document
	$(CARGO) build --release --workspace
	load/bench.sh

clean: ## remove what was built
	$(CARGO) clean
	rm -rf proto/node_modules
