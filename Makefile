# The commands of this project.  Each does everything it needs on a fresh Debian machine.

.PHONY: help build run test bench soak install format clean

help: ## Say what there is
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 18

build: ## Build build/release/weir and libweir.so
	@tools/setup build
	@tools/configure build/release $(if $(PREFIX),-Dprefix=$(PREFIX))
	@ninja -C build/release --quiet product

run: build ## Serve the example models and segment a picture (ONCE=1: stop after the answer)
	@ONCE=$(ONCE) examples/run

test: ## Run all tests (STAGE="unit sim": only these, see tools/test)
	@tools/test $(STAGE)

bench: build ## Measure against limits; results in bench/results and docs/performance.md
	@tools/setup bench
	@bench/run

soak: ## The long tests: storms, fuzzing by the clock, large sweeps (MINUTES=60)
	@tools/soak $(MINUTES)

install: PREFIX ?= /usr/local
install: build ## Install to /usr/local (DESTDIR= and PREFIX= are honoured)
	@meson install -C build/release --no-rebuild
	@[ -n "$(DESTDIR)" ] || ldconfig 2>/dev/null || true

format: ## Format all C files
	@tools/format

clean: ## Remove all builds; what was fetched stays
	@find build -mindepth 1 -maxdepth 1 ! -name 'deps*' ! -name 'venv*' ! -name node -exec rm -rf {} + 2>/dev/null || true
