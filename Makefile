# Two commands matter: `make book` and `make test`. Each sets up what it needs; `make help` lists the others.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
PORT ?= 8000
# What JupyterLab is told besides: LAB="--no-browser --ip 0.0.0.0"; in a container one is often root.
LAB ?=
ROOT_USER := $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: help book test lab serve notebooks bench findings live-check chapter lint lock clean setup
.DEFAULT_GOAL := help

help:  ## list the commands
	@echo "make [COMMAND] [PYTHON=python3.11] [JOBS=2] [PORT=8000] [LAB=--no-browser]"
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup:
	@$(PYTHON) tools/set_up.py

book: setup  ## build the site and print where it is
	@$(BIN)/python tools/build_book.py

test: setup  ## run every test: units, operator battery, doctests, all notebooks, the site in a browser
	@$(BIN)/python tools/run_tests.py --jobs $(JOBS)

lab: setup  ## open JupyterLab on the chapters
	@$(BIN)/jupyter lab chapters --port $(PORT) $(ROOT_USER) $(LAB)

serve: book  ## serve the site on localhost
	@echo "http://localhost:$(PORT)/  (Ctrl-C ends it)"
	@$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

notebooks: setup  ## execute the notebooks whose code, or whose part of the library, changed
	@$(BIN)/python tools/execute_notebooks.py --jobs $(JOBS)

bench: setup  ## measure every fast path beside its peers and store the tables
	@$(BIN)/python -m benchmarks

lint: setup  ## style, types, notebook hygiene and house rules; every tool runs, whatever the others find
	@status=0; $(BIN)/basedpyright & types=$$!; \
	  for check in "ruff check ." "ruff format --check ." "python tools/normalise_notebooks.py --check" \
	  "python tools/check_house.py" "python tools/spread_address.py --check" \
	  "python tools/spread_measurements.py --check"; do $(BIN)/$$check || status=1; done; \
	  wait $$types || status=1; exit $$status

device: setup  ## on a GPU: agreement with the CPU, and every fast path beside its peer and its bound
	@$(BIN)/python -m benchmarks.device

live-check: setup  ## decide every claim of the book in the Python of browsers (npm; a quarter of an hour)
	@$(BIN)/python tools/live_proofs.py --jobs $(JOBS)

findings:  ## run the scripts that show what other libraries do (network, a few minutes)
	@for script in findings/*.sh; do echo "== $$script"; bash "$$script" || exit 1; done

chapter: setup  ## begin a chapter: make chapter part=interludes slug=example
	@$(BIN)/python tools/new_chapter.py "$(part)" "$(slug)"

lock: setup  ## pin the newest versions that fit pyproject.toml
	@$(BIN)/python tools/lock_requirements.py

clean:  ## remove the environment and everything built
	@rm -rf .venv _build .pytest_cache .ruff_cache .hypothesis *.egg-info
