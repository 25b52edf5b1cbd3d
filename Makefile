# make app         open the dashboard on localhost
# make lab         copy the course's notebooks into course/ and open them in JupyterLab; their runs appear in the dashboard
# make test        run the whole test suite, offline
# make lint        check style, formatting and types: ruff and mypy
# make notebooks   execute the notebooks from a clean kernel and write what they show; ONLY=03 does one
# make numbers     write the tables of README.md and docs/ anew from the records, and docs/cli.md from the help
# make docs        build the documentation site into build/site; a warning is an error
# make site        the same into a folder that any static host serves: make site OUT=FOLDER
# make plotly      fetch the plotly.js bundle of the dashboard into static/, with npm; for an upgrade of plotly
# make env         make the environment in .venv and stop there
#
# Each makes .venv when it is missing or older than pyproject.toml or constraints.txt, and installs nothing otherwise.
# Another interpreter: make env PYTHON=python3.12

PYTHON ?= python3
BIN := $(if $(filter Windows_NT,$(OS)),.venv/Scripts,.venv/bin)
OUT ?= build/site
INSTALLED := .venv/.installed

.PHONY: app lab test lint notebooks numbers docs site plotly env

app: $(INSTALLED)
	$(BIN)/python -m streamlit run app.py --server.address localhost --server.showEmailPrompt false --browser.gatherUsageStats false

lab: $(INSTALLED)
	@$(BIN)/python -m lab course copy course
	LAB_RUNS="$(CURDIR)/runs" $(BIN)/python -m jupyterlab course --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --timeout 600

lint: $(INSTALLED)
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy

notebooks: $(INSTALLED)
	$(BIN)/python -m lab course build --only "$(ONLY)"

numbers: $(INSTALLED)
	$(BIN)/python scripts/write_docs.py

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "The site is in build/site. To look at it: python3 -m http.server --directory build/site"

site: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --site-dir "$(abspath $(OUT))"
	@touch "$(OUT)/.nojekyll"
	@echo "The site is in $(OUT). To look at it: python3 -m http.server --directory \"$(OUT)\""

plotly: $(INSTALLED)
	$(BIN)/python scripts/fetch_plotly.py

env: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "There is no '$(PYTHON)' on this machine. Install Python 3.11 or newer, or name one: make env PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "The lab needs Python 3.11 or newer; '$(PYTHON)' is older: $$($(PYTHON) --version 2>&1)." \
	       "Install a newer one, or name one: make env PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' comes without its venv module. On Debian and Ubuntu: apt install python3-venv; then run make again." >&2; exit 1; }
	$(PYTHON) -m venv .venv || { \
	  echo "The environment .venv cannot be made in $(CURDIR). Copy the lab to a folder that you may write; then run make again." >&2; exit 1; }
	$(BIN)/python -m pip install -c constraints.txt -e '.[test,dev,docs]' || { \
	  echo "pip could not install the lab; its messages are above. Without a network, connect to one; then run make again." >&2; exit 1; }
	@touch $@
