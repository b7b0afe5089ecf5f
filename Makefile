# What people type. The work is done by scripts/, each of which says what it is for.

PREFIX ?= $(HOME)/.local
export PREFIX DESTDIR UNITDIR QUICK UNOPTIMISED

.DEFAULT_GOAL := help
.PHONY: help build install uninstall demo test bench soak fuzz lint

help: ## Show this list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' Makefile | while IFS='	' read -r goal what; do \
		printf 'make %-10s %s\n' "$$goal" "$$what"; done

build: ## Build what is installed: optimised, and the client linked statically
	@scripts/build

install: build ## Install for this user, or under PREFIX=... (a packager adds DESTDIR=... and UNITDIR=...)
	@scripts/install

uninstall: ## Remove what install put there; the registry stays
	@scripts/uninstall

demo: ## Show the main job on a scratch repository, without installing anything
	@scripts/demo

test: ## Run every test
	@scripts/test

bench: ## Measure every number that wtd promises, and write BENCHMARKS.md (QUICK=1: about a minute)
	@scripts/bench

soak: ## Run for MINUTES each (60) the tests that gain by time
	@scripts/soak $(MINUTES)

fuzz: ## Make up input for every parser of foreign bytes (SECONDS=10 for each)
	@scripts/fuzz $(SECONDS)

lint: ## Check formatting, lints, documentation, licences and scripts
	@scripts/lint
