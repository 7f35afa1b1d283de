# `make demo` and `make test` are the two commands; `make help` lists the others.
# They make .venv on first use, with uv where it is installed and with venv and pip elsewhere.
# Written for GNU make 3.81 (macOS) and later.

PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null)
VENV := .venv
VENV_PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
CONSTRAINTS := constraints.txt
OUTPUTS := $(CURDIR)/outputs

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
EXTRAS := .[notebooks,dicom,cluster,export,survey,view,test]
comma := ,
# uv may pick (or fetch) any Python that fits, unless PYTHON was chosen by hand.
UV_CHOICE := $(if $(filter file,$(origin PYTHON)),>=3.11$(comma)<3.14,$(PYTHON))

# Notebooks that are tested or refreshed always run the tiny profile on the phantom, whatever the
# caller's environment says; an empty LITS_DATA_ROOT counts as unset.
PHANTOM := LITS_PROFILE=tiny LITS_RECIPE= LITS_DATA_ROOT= LITS_LAYOUT= LITS_MASK_MEANING=

# TensorFlow's C++ information lines say nothing about this project.
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: help demo test notebooks bench browser lowest clean FORCE

help:
	@echo "make demo       run notebooks 01-04 on the phantom; pages and figures go to outputs/"
	@echo "make test       unit tests, then every notebook from a fresh start"
	@echo "make notebooks  refresh each .ipynb from its .py and execute it in place"
	@echo "make bench      speed against the report's own code, as ratios"
	@echo "make browser    every widget in JupyterLab and Voila, in a Chromium without a window"
	@echo "make lowest     unit tests on the lowest versions that pyproject.toml allows, in .venv-lowest"
	@echo "make clean      remove outputs/ and caches (.venv stays)"
	@echo ""
	@echo "PYTHON=python3.12 chooses the interpreter that .venv is made from; UV= does without uv;"
	@echo "VENV=.venv-3.12 makes another environment beside it."

demo: $(INSTALLED)
	$(VENV_PYTHON) -m lits_helpers demo

# Nothing stored by an earlier run may stand in for a training that no longer works, so the
# notebooks start from an empty folder. Later ones reuse what earlier ones made within the run.
test: $(INSTALLED)
	$(VENV_PYTHON) -m pytest
	rm -rf "$(OUTPUTS)/test"
	$(PHANTOM) LITS_OUTPUT_ROOT="$(OUTPUTS)/test" $(VENV_PYTHON) -m pytest --durations=5 \
	    --nbval-lax --nbval-current-env --nbval-cell-timeout=600 notebooks

# One direction only: the .py is the source, the .ipynb is made from it and then executed. The last
# option keeps what TensorFlow's C++ prints at its import, which no log level silences, out of the
# stored outputs: it goes to the terminal instead.
notebooks: $(INSTALLED)
	rm -rf "$(OUTPUTS)/notebooks"
	set -e; for source in notebooks/*.py; do \
	    $(VENV_PYTHON) -m jupytext --update --to ipynb "$$source"; \
	    $(PHANTOM) LITS_OUTPUT_ROOT="$(OUTPUTS)/notebooks" $(VENV_PYTHON) -m nbconvert \
	        --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False \
	        --ExecutePreprocessor.extra_arguments=--IPKernelApp.capture_fd_output=False \
	        "$${source%.py}.ipynb"; \
	    $(VENV_PYTHON) .ci/tidy_notebook.py "$${source%.py}.ipynb"; \
	done

bench: $(INSTALLED)
	$(VENV_PYTHON) -m pytest tests/benchmarks

# Screenshots go to outputs/browser.
browser: $(INSTALLED)
	$(VENV_PYTHON) -m pytest tests/browser

# What pyproject.toml does not name is the newest that goes with these. NumPy's and pandas's lowest
# have no wheels for Python 3.13.
lowest: build/lowest.txt
	$(MAKE) VENV=.venv-lowest CONSTRAINTS=$< PYTHON=python3.11 .venv-lowest/.installed
	.venv-lowest/bin/python -m pytest

build/lowest.txt: pyproject.toml
	mkdir -p build
	sed -n 's/^    "\([A-Za-z0-9-]*\)>=\([0-9.]*\)",$$/\1==\2/p' $< > $@

clean:
	rm -rf outputs .pytest_cache .hypothesis .benchmarks build *.egg-info
	find lits_helpers tests notebooks -name __pycache__ -prune -exec rm -rf {} +

# A moved or copied clone brings a .venv that installs from the old place: the stamp holds the
# folder that .venv was made for, and another one installs anew.
ifneq ($(shell cat $(INSTALLED) 2>/dev/null),$(CURDIR))
$(INSTALLED): FORCE
endif

$(INSTALLED): pyproject.toml $(CONSTRAINTS)
ifneq ($(UV),)
	@$(VENV_PYTHON) -c '$(SUPPORTED)' 2>/dev/null \
	    || "$(UV)" venv --seed --clear --python "$(UV_CHOICE)" $(VENV)
	"$(UV)" pip install --python $(VENV_PYTHON) -c $(CONSTRAINTS) -e '$(EXTRAS)'
else
	@$(VENV_PYTHON) -m pip --version >/dev/null 2>&1 && $(VENV_PYTHON) -c '$(SUPPORTED)' || { \
	    $(PYTHON) -c '$(SUPPORTED)' 2>/dev/null || { \
	        echo "Python 3.11, 3.12 or 3.13 is needed, and '$(PYTHON)' is none of them." \
	            "Name one that is installed, as in: make PYTHON=python3.12" >&2; exit 1; }; \
	    $(PYTHON) -m venv --clear $(VENV); }
	$(VENV_PYTHON) -m pip install -c $(CONSTRAINTS) -e '$(EXTRAS)'
endif
	@echo "$(CURDIR)" > $@
