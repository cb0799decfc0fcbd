# Every target makes what it needs, once: a virtual environment in .venv with this package in it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo cards machines test coverage test-slow as-on-macos mutants lint check format bench clean

help:
	@echo "make demo       convert the demo checkpoint to 8 and 4 bits, read 24 pages with each, print a table"
	@echo "make cards      measure the demo's variants anew and make their model cards; run it where nothing else runs"
	@echo "make machines   write the README's table of machines anew, from docs/machines"
	@echo "make test       run the tests"
	@echo "make coverage   run them, and print which lines none of them reaches"
	@echo "make test-slow  run the tests that take minutes, and properties on ten times as many examples"
	@echo "make as-on-macos  run the tests that are kept for it with only what macOS has, on Linux"
	@echo "make mutants    break the package a little in 200 places, and print what no test notices: half an hour"
	@echo "make lint       formatting, lint, types, workflows, spelling and style"
	@echo "make check      the same, then the tests"
	@echo "make bench      measure against reference BLAS, stock mlx-vlm and transformers, and fit against stock rounding"
	@echo "make clean      remove .venv and build"

demo: .venv/installed-mlx
	$(BIN)/python demo/run.py

cards: .venv/installed-mlx
	$(BIN)/python demo/model_cards.py

machines: .venv/installed-mlx
	$(BIN)/python demo/machines.py

test: .venv/installed-dev
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile

coverage: .venv/installed-dev
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile --cov --cov-report=term

test-slow: .venv/installed-dev
	$(BIN)/python -m pytest -m 'slow or hypothesis' --hypothesis-profile=thorough

as-on-macos: .venv/installed-dev
	$(BIN)/python -m tests.as_on_macos

mutants: .venv/installed-dev
	$(BIN)/python tests/mutants.py --jobs=2

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/actionlint .github/workflows/*.yml
	$(BIN)/codespell *.md docs olmocr tests benchmarks deploy demo/*.md demo/*.py
	$(BIN)/proselint --config .proselintrc.json check README.md CONTRIBUTING.md docs demo/README.md

check: lint
	$(MAKE) test

format: .venv/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/installed-mlx
	$(BIN)/python benchmarks/blas.py
	$(BIN)/python benchmarks/pages.py
	$(BIN)/python benchmarks/rounding.py

clean:
	rm -rf .venv build

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $$($(PYTHON) --version) is too old, 3.11 or newer is needed; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "making a virtual environment in .venv"
	@$(PYTHON) -m venv .venv || \
		{ rm -rf .venv; echo "error: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@

.venv/installed-mlx: .venv/made pyproject.toml
	@echo "installing olmocr with MLX into .venv: about a minute and 2 GB, once"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[mlx,blas,fast,validate,viewer]'
	@touch $@

.venv/installed-dev: .venv/installed-mlx pyproject.toml
	@echo "installing the test tools into .venv, once"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all,s3,dev]'
	@touch $@
