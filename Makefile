# elastic-mem: everything that is done with this repository, by name. `make` alone lists it.
# Nothing is left outside target/ and the state folders of the runtimes that are started.

PREFIX ?= /usr/local
DESTDIR ?=
SYSCONFDIR ?= /etc
CARGO ?= cargo
BIN := $(abspath target/release/elastic-mem)

.DEFAULT_GOAL := help
.PHONY: help setup build test test-host vm vm-full demo bench install deb dist clean

help: ## List these targets
	@echo "usage: make TARGET"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
	  printf '%-12s %s\n' "$$name" "$$text"; done

setup: ## Install what building, testing, demo and benchmarks need (Debian; root only if something is missing)
	@scripts/setup build test demo bench

build: ## Build the static release binary, target/release/elastic-mem
	@scripts/setup build
	$(CARGO) rustc --release --locked --bin elastic-mem -- -C target-feature=+crt-static
	@scripts/check-static $(BIN)

test: ## Run every check: format, lints, unit tests, documents, scripts, build, integration tests, tests below containerd and Docker, tests in guests
	@scripts/setup build test
	@scripts/check

test-host: build ## Run the tests for cgroup v2, memory nodes, tiers, swap and systemd on this machine; what it lacks is skipped
	ELASTIC_MEM_BIN=$(BIN) $(CARGO) test --locked --test system

# The guest of `make vm`: KERNEL=7, TOPOLOGY=hmat, INIT=systemd, SWAP=512 (MiB), ZSWAP=1, LATENCY=300 (ns), TIMEOUT=1800 (s).
VM_OPTIONS = $(if $(KERNEL),--kernel $(KERNEL)) $(if $(TOPOLOGY),--topology $(TOPOLOGY)) \
  $(if $(filter systemd,$(INIT)),--systemd) $(if $(SWAP),--swap $(SWAP)) $(if $(ZSWAP),--zswap) \
  $(if $(LATENCY),--latency $(LATENCY)) $(if $(TIMEOUT),--timeout $(TIMEOUT))
# Given to the shell as a variable, so that it may hold quotes.
export CMD

vm: ## Run CMD='...' in a guest with cgroup v2; without CMD, the lines of standard input. KERNEL=7 TOPOLOGY=hmat INIT=systemd ...
	@if [ -n "$$CMD" ]; then scripts/vm run $(VM_OPTIONS) -- "$$CMD"; else scripts/vm shell $(VM_OPTIONS); fi

vm-full: build ## Run the tests in guests of every kind, about an hour
	@scripts/engines -q
	@ELASTIC_MEM_BIN=$(BIN) scripts/vm suite full

demo: build ## Run real functions below containerd, observed and elastic
	@demo/run

bench: build ## Run all benchmarks, quickly: bench/* --quick
	@scripts/setup bench
	$(CARGO) bench --locked --bench cost --no-run
	$(CARGO) build --locked --example adaptive
	@scripts/bench --quick

install: ## Install binary, completions, man pages and configuration below $(DESTDIR)$(PREFIX); tells no engine of it
	@"$(BIN)" install none --prefix "$(PREFIX)" --sysconfdir "$(SYSCONFDIR)" $(if $(DESTDIR),--destdir "$(DESTDIR)")

deb: build ## Make a Debian package in target/dist
	@scripts/setup package
	@scripts/package "$(BIN)" deb

dist: build ## Make all that a release consists of in target/dist: package, archive, checksums
	@scripts/setup package
	@scripts/package "$(BIN)" deb tar

clean: ## Remove target/
	$(CARGO) clean
	rm -rf target
