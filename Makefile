# From a fresh clone: `make demo` shows live signals, `make test` runs every check. Both set up first.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DELETE_ON_ERROR:

JOBS ?= $(shell nproc)
export CMAKE_BUILD_PARALLEL_LEVEL := $(JOBS)

python := .venv/bin/python
build := build/release

.PHONY: help
help:
	@echo "make setup        .venv with the tickwire command in it"
	@echo "make demo         a simulated venue, the engine and a small model, live for some seconds"
	@echo "make test         every test and check"
	@echo "make test-host    apply and revert the tuning of this very host, as root; puts it back"
	@echo "make soak         KILLS=1000 of worker processes, then random storms at a simulated venue, MINUTES=5 of"
	@echo "                  them, all held to the truth"
	@echo "make bench        beside the usual Python design and the peers of each stage; some minutes"
	@echo "make conformance  the WebSocket client against the Autobahn suite; needs a Python 2.7"
	@echo "make format       format C++ and Python"
	@echo "make hot-path     the rules of the data plane's functions, through their calls; under a minute"
	@echo "make tidy         clang-tidy over the C++ layers; some minutes"
	@echo "make fuzz         each fuzz target for SECONDS=60, and what it covered; needs a clang with libFuzzer"
	@echo "make coverage     lines and branches of the C++ layers that their tests run, held to floors"
	@echo "make mutants      changes in books, sequencer, windows and judges that no test notices; SAMPLE=50 SEED=n"
	@echo "make clean        remove what was built; .venv and .deps stay"

# The extension and the C++ tests share one build folder, so the layers are compiled once.
.PHONY: setup
setup:
	@tools/bootstrap
	@echo "setup: building the extension and installing tickwire into .venv"
	@$(python) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps \
	    --config-settings=build-dir=$(build) --config-settings=cmake.define.TICKWIRE_TESTS=ON --editable .
	@echo "setup: done, $$(.venv/bin/tickwire --version)"

.PHONY: demo
demo: setup
	@.venv/bin/tickwire demo

.PHONY: test test-cpp test-py check
test: setup test-cpp test-py check

test-cpp:
	cmake --build $(build)
	ctest --test-dir $(build) --output-on-failure --no-tests=error --parallel $(JOBS)

test-py:
	$(python) -m pytest --numprocesses auto --dist worksteal

check:
	$(python) tools/check_layering.py
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	.venv/bin/shellcheck --external-sources --check-sourced scripts/tuning/*.sh tools/bootstrap tools/fuzz .ci/run
	$(python) -m mypy.stubtest tickwire._core

# Changes this machine while it runs, so only when asked for: no other target comes here.
.PHONY: test-host
test-host: setup
	TICKWIRE_TEST_HOST=1 $(python) -m pytest tests/py/tune/test_tuning_here.py

# SEED=n runs again what a storm printed.
MINUTES ?= 5
KILLS ?= 1000
.PHONY: soak
soak: setup
	@$(python) tools/soak.py --minutes $(MINUTES) --kills $(KILLS) $(if $(SEED),--seed $(SEED))

# Side by side with the peers first: that is what the rest explains.
.PHONY: bench
bench: setup
	@tools/bootstrap bench
	cmake -S . -B build/bench -G Ninja -DTICKWIRE_BENCH=ON
	cmake --build build/bench
	@$(python) tools/bench/compare.py --json build/bench/compare.json
	@$(python) tools/bench/workers.py --json build/bench/workers.json
	@$(python) tools/bench/replay.py --json build/bench/replay.json
	@$(python) tools/bench/exchange.py
	cmake --build $(build) --target alloc_test
	@$(python) tools/bench/allocations.py $(build)/tests/alloc/alloc_test
	@for program in build/bench/*_bench; do "$$program"; done

# Further than make test goes: the suite wants a Python 2.7, which it finds on the path or in pyenv.
.PHONY: conformance
conformance: setup
	@$(python) tools/conformance

.PHONY: format
format:
	find cpp tests tools -name '*.[ch]pp' -print0 | xargs -0 .venv/bin/clang-format -i
	.venv/bin/ruff check --fix --quiet || true
	.venv/bin/ruff format

.PHONY: tidy
tidy: setup
	$(python) .venv/bin/run-clang-tidy.py -clang-tidy-binary .venv/bin/clang-tidy -quiet -j $(JOBS) -p $(build) \
	    'cpp/tickwire/.*\.cpp$$'

# The functions that run after start allocate, lock and throw nothing: what TICKWIRE_HOT says of them.
.PHONY: hot-path
hot-path: setup
	@$(python) tools/check_hot_path

SECONDS ?= 60
.PHONY: fuzz
fuzz: setup
	@tools/bootstrap --all packages
	@tools/fuzz $(SECONDS)

# Counts of an earlier run would cover what no test reaches any more.
.PHONY: coverage
coverage: setup
	@tools/bootstrap coverage
	cmake --preset coverage
	cmake --build --preset coverage
	find build/coverage -name '*.gcda' -delete
	TICKWIRE_FUZZ_SEED=1 TICKWIRE_FUZZ_RUNS=2000 ctest --preset coverage --parallel $(JOBS)
	@$(python) tools/coverage.py build/coverage

SAMPLE ?= 50
.PHONY: mutants
mutants: setup
	@$(python) tools/mutants.py --sample $(SAMPLE) $(if $(SEED),--seed $(SEED)) $(if $(FILE),--file $(FILE))

.PHONY: clean
clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
