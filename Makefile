# `make run` starts a fleet on this machine, `make test` runs everything that CI runs.
# Both install what is missing first. `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# One target directory for every checkout and for CI: RocksDB takes minutes to compile, once.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/anello/target
TOOLS := $(HOME)/.cache/anello/tools
# Make itself gives CC and CXX a value, so `?=` would never set them.
ifeq ($(origin CC),default)
export CC = ccache cc
endif
ifeq ($(origin CXX),default)
export CXX = ccache c++
endif
export RUSTFLAGS ?= -C link-arg=-fuse-ld=mold
export CARGO_TERM_COLOR ?= auto

# What the build needs beyond Rust and a C toolchain: a compiler cache, a fast linker, and libclang for
# RocksDB's bindings. The README's examples and the bench use curl and jq; the fault tests lay links with ip.
PACKAGES := ccache mold libclang-dev curl jq iproute2
DENY_VERSION := 0.20.2
FLEET ?= deploy/fleets/two-dc.toml

say = @printf '\n\033[1m== %s\033[0m\n' "$(1)"

.PHONY: help
help: ## List what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: run
run: build ## Start a six-node, two-datacenter fleet on this machine (FLEET=file for another)
	$(call say,Starting the fleet of $(FLEET); Ctrl-C ends it)
	@exec "$(CARGO_TARGET_DIR)/release/anello" fleet up "$(FLEET)"

.PHONY: build
build: packages ## Build the release binaries `anello-node` and `anello`
	$(call say,Building the release binaries: about 12 minutes on two cores the first time and seconds after)
	@cargo build --locked --release --bins -p anello-node -p anello-cli

.PHONY: test
test: packages components fmt clippy doc unit deny ## Everything CI runs
	$(call say,All checks passed)

.PHONY: fmt
fmt: components
	$(call say,rustfmt)
	@cargo fmt --all --check

.PHONY: clippy
clippy: packages components
	$(call say,clippy: warnings are errors)
	@cargo clippy --locked --workspace --all-targets -- -D warnings

.PHONY: doc
doc: packages
	$(call say,cargo doc: warnings are errors)
	@RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --workspace --no-deps --quiet

.PHONY: unit
unit: packages
	$(call say,Tests: unit and property tests then the simulator and real processes; the first build takes about 15 minutes)
	@cargo test --locked --workspace

.PHONY: deny
deny: $(TOOLS)/bin/cargo-deny
	$(call say,cargo deny: licences sources and the walls between crates)
	@"$(TOOLS)/bin/cargo-deny" --locked --log-level error check bans licenses sources

.PHONY: bench
bench: build ## The speed table of docs/performance.md (about 10 minutes)
	@deploy/bench/run.sh

.PHONY: packages
packages:
	@missing=(); for p in $(PACKAGES); do \
	  dpkg-query -W -f='$${Status}' "$$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$$p"); done; \
	if (( $${#missing[@]} )); then \
	  echo "== Installing Debian packages: $${missing[*]}"; \
	  sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo apt-get update -qq; \
	  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null; \
	fi

.PHONY: components
components:
	@cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@cargo clippy --version >/dev/null 2>&1 || rustup component add clippy

$(TOOLS)/bin/cargo-deny:
	$(call say,Installing cargo-deny $(DENY_VERSION): some minutes once)
	@cargo install --quiet --locked --version $(DENY_VERSION) --root "$(TOOLS)" cargo-deny
