# r2box: `make` builds dist/r2box.  Needs Python 3.9 or newer and GNU make; the rest comes into .venv by itself.

PYTHON ?= python3
PREFIX ?= /usr/local
DESTDIR ?=
ARGS ?=

venv := .venv/bin
ready := .venv/.ready
sources := $(shell find r2box -name '*.py') $(wildcard build/*.py man/*.[57]) pyproject.toml LICENSE README.md

.PHONY: all build demo test quick check bench sim rehearsal pages install uninstall clean help

all: build

build: dist/r2box  ## build dist/r2box and a symlink beside it for every tool (also: plain `make`)

demo: dist/r2box  ## link two nodes on this machine and show what can be done with them
	@sh build/demo.sh

# The tests wait for processes more than they compute: three at a time keep two cores busy.
test: dist/r2box $(ready)  ## run the tests (ARGS="-k wire" chooses some, ARGS="-n 0" runs one after the other)
	R2BOX_DIST=dist $(venv)/python -m pytest -n 3 --dist worksteal $(ARGS)

quick: check  ## lint, type-check and run the unit tests, in less than a minute
	$(venv)/python -m pytest -q -n 2 --dist worksteal tests/unit $(ARGS)

check: $(ready)  ## lint and type-check
	$(venv)/python -m ruff check
	$(venv)/python -m mypy

sim: $(ready)  ## carriers over bad paths and whole networks, simulated (ARGS="carriers --seeds 10", "network", "growth")
	@PYTHONPATH=tests $(venv)/python -m sim $(ARGS)

rehearsal: dist/r2box $(ready)  ## long runs of cuts, losses and kills (ARGS="cuts hops", "cuts size=100 cuts=100 seed=7")
	@PYTHONPATH=tests $(venv)/python -m support.rehearsal $(ARGS)

bench: dist/r2box $(ready)  ## measure beside socat, ssh and others (ARGS="--list", "--quick", "--only bulk,rtt")
	@[ -e .venv/.bench ] || { \
		echo "adding to .venv what bench compares with and draws with (once)"; \
		$(venv)/python -m pip --disable-pip-version-check install --quiet --editable '.[bench]' \
		&& touch .venv/.bench || echo "bench: cannot be had, going on without"; }
	@PYTHONPATH=tests $(venv)/python -m bench $(ARGS)

pages: $(ready)  ## write the generated pages in man/ anew
	@$(venv)/python build/pages.py

install: dist/r2box  ## install below PREFIX=/usr/local; DESTDIR= is put in front
	@sh build/install.sh install "$(PYTHON)" "$(PREFIX)" "$(DESTDIR)"

uninstall:  ## remove what install has put there, and nothing else
	@sh build/install.sh uninstall "$(PYTHON)" "$(PREFIX)" "$(DESTDIR)"

clean:  ## remove everything that make has made, .venv too
	rm -rf .venv dist .setuptools .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

dist/r2box: $(sources) $(ready)
	@echo "building dist/r2box"
	@$(venv)/python build/make.py

$(ready): pyproject.toml
	@echo "making .venv with the tools that build and test (once; it takes a minute)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 9) and "r2box: needs Python 3.9 or newer")'
	@$(PYTHON) -m venv --clear .venv
	@$(venv)/python -m pip --disable-pip-version-check install --quiet --editable '.[dev]'
	@touch $@
