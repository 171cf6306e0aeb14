# Two commands are all the set-up: `make run` and `make test`. Needs git, make, Python 3.11 or 3.12.
# Paths are relative, so that a folder with spaces works.

# The first interpreter that runs and has the right version; a name on PATH may be an empty shim.
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
  if $$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; \
  then echo $$p; break; fi; done)
BIN := .venv/bin
STAMP := .venv/.installed
# Stages run `python` from PATH; bytecode caches stay out of the folders that DVC hashes.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: install run test test-slow check lock clean certify bench check-real ladder

install: $(STAMP)  ## the environment alone, in .venv

run: $(STAMP)  ## fresh clone -> submission
	@$(BIN)/podium run

test: $(STAMP)  ## all tests, two at a time
	@$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: $(STAMP)  ## twenty kills at random times, the biggest nets
	@$(BIN)/python -m pytest -m slow

check: $(STAMP)  ## lint, format, types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

certify: $(STAMP)  ## four runs in clean clones, one of them killed; every declared output compared
	@$(BIN)/podium certify

bench: $(STAMP)  ## speed, as ratios measured side by side
	@$(BIN)/python benchmarks/eda_speed.py
	@$(BIN)/python benchmarks/startup.py
	@$(BIN)/python benchmarks/training_speed.py
	@$(BIN)/python benchmarks/layouts.py
	@$(BIN)/python benchmarks/depthwise.py
	@$(BIN)/python benchmarks/real_data.py --only lemon --head
	@$(BIN)/python benchmarks/kills.py
	@$(BIN)/python benchmarks/cpu_classes.py
	@$(BIN)/python benchmarks/compression.py
	@$(BIN)/python benchmarks/audit.py --seeds 200

check-real: $(STAMP)  ## the real competitions beside the repository, where they are
	@$(BIN)/python benchmarks/real_data.py --write

ladder: $(STAMP)  ## what each trick of training buys (hours)
	@$(BIN)/python benchmarks/ladder.py --write

clean:  ## decoded images, logs and caches of tools: says what it freed and asks nothing
	@if [ -x $(BIN)/podium ]; then $(BIN)/podium clean; else echo "nothing installed, nothing to clean"; fi

lock: $(STAMP)  ## resolve pyproject.toml into requirements.lock (needs a connection)
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile pyproject.toml --extra dev --overrides overrides.txt --universal \
	  --generate-hashes --no-header --no-annotate --quiet --output-file requirements.lock

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or 3.12 on PATH: make run PYTHON=/path/to/python3.11"; exit 2; }
	@"$(PYTHON)" -c 'import shutil, sys; free = shutil.disk_usage(".").free / 1e9; sys.exit(0 if free > 4 else f"error: {free:.1f} GB free: the environment needs 2 GB, a run another 1-2 GB")'
	@echo "installing into .venv (1.8 GB, one to three minutes)"
	@"$(PYTHON)" -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --no-compile -r requirements.lock
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true  # as pip would, errors and all, but on all cores
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)
