# Everything that people run is what CI runs. Each target sets up what it needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow test-portable test-trainers test-slurm lint docs docs-build bench bench-trainer bench-scoring bench-sweep bench-laws bench-wide mixbench bench-regret bench-methods bench-scale bench-faults bench-corpus bench-evidence clean

$(READY): infra/constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "Cuvee needs Python 3.11; found: $(PYTHON). Try: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up $(VENV) (a few minutes, once) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c infra/constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c infra/constraints.txt -e '.[dev]'
	@touch $(READY)

demo: $(READY)  ## find a mixture on real text
	@$(BIN)/cuvee run recipes/quickstart.yaml

test: $(READY)  ## the default test run
	@$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: $(READY)  ## the long tests
	@$(BIN)/python -m pytest -m slow -n 2 --dist loadfile

# Fits, methods and recommendations once more without AVX-512: it may change digits, never an answer.
OLDER := NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR" OPENBLAS_CORETYPE=Haswell

test-portable: $(READY)  ## the tests of answers under an older instruction set, where there is a newer one
	@! grep -qs avx512f /proc/cpuinfo || env $(OLDER) $(BIN)/python -m pytest -n 2 --dist loadfile \
		tests/mixtures tests/flows/test_olmix.py
	@! grep -qs avx512f /proc/cpuinfo || env $(OLDER) $(BIN)/python -m pytest -m slow tests/mixtures/test_anneal.py

test-trainers: $(READY)  ## exports, read by the trainers' own libraries, each installed into a folder of its own
	@$(BIN)/python tests/trainers.py

SLURM := command -v slurmctld || ls /usr/sbin/slurmctld
APT := apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends

test-slurm: $(READY)  ## studies on a real Slurm of their own, installed where apt can; skipped where there is none
	@{ $(SLURM); } > /dev/null 2>&1 || [ "$$(id -u)" != 0 ] || ! command -v apt-get > /dev/null || \
		{ $(APT) slurm-wlm munge > /dev/null; } || echo "apt cannot install Slurm here"
	@$(BIN)/python -m pytest -m slurm -rs tests/infra/test_slurm.py

lint: $(READY)  ## style, types, layout
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy -p cuvee
	@$(BIN)/lint-imports

docs: $(READY)  ## the docs site, on http://127.0.0.1:8000
	@$(BIN)/python docs/write_reference.py
	@$(BIN)/zensical serve

docs-build: $(READY)  ## the docs site into build/site; a broken link or anchor fails
	@$(BIN)/python docs/write_reference.py
	@$(BIN)/zensical build --strict --clean

bench: bench-trainer bench-scoring bench-sweep bench-laws bench-regret  ## all benchmarks

bench-trainer: $(READY)  ## training speed against a plain transformers loop
	@$(BIN)/python benchmarks/trainer.py

bench-scoring: $(READY)  ## packed scoring against one HFLM call per proxy
	@$(BIN)/python benchmarks/scoring.py

bench-sweep: $(READY)  ## what a study costs beside training and scoring
	@$(BIN)/python benchmarks/sweep.py

bench-laws: $(READY)  ## every law on the RegMix tables
	@$(BIN)/python benchmarks/laws.py

bench-wide: $(READY)  ## 200 domains in two phases, 2,000 runs, 20 targets: fit, search, intervals
	@$(BIN)/python benchmarks/wide.py --laws default

mixbench: $(READY)  ## every law and search on all tables and worlds, random and far
	@$(BIN)/python benchmarks/mixbench --workers 2 --limit 10 --out build/mixbench.json --page build/mixbench.md

bench-regret: $(READY)  ## what a method's answer is worth after so many runs, on worlds
	@$(BIN)/python benchmarks/regret.py

bench-methods: $(READY)  ## every method at one budget, on the quickstart (an hour or more) and on worlds
	@$(BIN)/python benchmarks/methods.py --worlds --recipe recipes/quickstart.yaml

bench-corpus: $(READY)  ## reading, cleaning and tokenizing text against tokenizers and datatrove; memory (an hour)
	@$(BIN)/python benchmarks/corpus.py

bench-scale: $(READY)  ## scaling laws: intervals beyond the largest size, and against ranking at one size
	@$(BIN)/python benchmarks/mixbench --tables --scaling average joint additive nested repeated --workers 2 --limit 90 --out build/scaling.json
	@$(BIN)/python benchmarks/scale.py

bench-evidence: $(READY)  ## intervals, false claims, power, optimism, leaks, worth: every figure (hours; goes on where it stopped)
	@$(BIN)/python benchmarks/evidence

bench-faults: $(READY)  ## faults at random moments, generated inputs, 10,000 records (hours)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c infra/constraints.txt -e '.[team]'
	@$(BIN)/python benchmarks/resilience.py

clean:  ## remove the environment, the docs site and every result
	rm -rf $(VENV) .cuvee build .cache docs/reference
