# Commands for users and developers; `make` alone lists them.
#
#   make demo PYTHON=/usr/bin/python3.12    with a Python of your choice
#   make lock OPTIONS=--upgrade             with the newest versions that pyproject.toml allows

VENV = .venv
BIN = $(VENV)/bin
OPTIONS =
SHELL = /bin/bash

# Exits with 0 on a Python that Fruits supports.
USABLE = import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON = $(or $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c '$(USABLE)' 2>/dev/null && echo $$python && break; done),python3)

define NO_PYTHON
cannot be used: Fruits needs Python 3.11, 3.12 or 3.13, with the venv module.
  on Debian or Ubuntu:                     sudo apt-get install python3 python3-venv
  where that is older than 3.11 or newer:  sudo apt-get install python3.12 python3.12-venv
  with a Python from elsewhere:            make setup PYTHON=/path/to/python3.12
endef
export NO_PYTHON

# The locks are complete: nothing is resolved again. No isolated builds: they would install build systems that are not
# pinned by hash.
INSTALL = $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --no-build-isolation --no-deps
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header $(OPTIONS)

.PHONY: help setup setup-all demo test test-hosts test-spark-matrix lint format lock test-pythons clean

help:          ## list the commands
	@sed -n 's/^\([a-z-]*:\)[^#]*## /\1	/p' Makefile | expand -t 16

setup: $(VENV)/.light  ## install the light set in .venv: the local and Dask backends, and the server; no Keras, TensorFlow or Spark

setup-all: $(VENV)/.everything  ## install everything in .venv: Spark, Keras, TensorFlow, S3, and the tools of the tests

demo: setup    ## run a job on a small generated data set, on Dask
	$(BIN)/fruits demo

# Some containers forbid bytecode; without it each of the hundreds of processes compiles all that it imports.
test: $(VENV)/.everything  ## install everything, and run the main tests, on Dask and on Spark
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

test-hosts: $(VENV)/.everything  ## whole jobs on three hosts that share nothing, and one cut off (root, iproute2; minutes)
	$(BIN)/python -m pytest tests/hosts

# Spark, the Python of its lane, and the environment that is made for it. Worker code has to do on all of them; whole
# jobs, as of the file that is left out, need the package installed, and a Python that it can be installed on.
SPARKS = 3.3:3.10 3.5:3.11 4:3.12
test-spark-matrix: $(VENV)/.everything  ## the Spark backend on Spark 3.3.0 and Python 3.10, on 3.5, and on 4
	@for lane in $(SPARKS); do \
	    spark=$${lane%:*}; version=$${lane#*:}; venv=.venv-spark-$$spark; pins=requirements/spark-$$spark.txt; \
	    for python in python$$version "$$HOME"/.pyenv/versions/$$version.*/bin/python none; do \
	        $$python -c "import sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$$version')" 2>/dev/null && break; \
	    done; \
	    if [ $$python = none ]; then skipped="$$skipped $$spark (no Python $$version)"; continue; fi; \
	    if [ $$spark = 4 ] && ! java -version 2>/dev/null; then skipped="$$skipped $$spark (no Java)"; continue; fi; \
	    echo "Spark $$spark on Python $$version: $$python"; \
	    if { [ $$venv/.whole -nt $$pins ] || { $(BIN)/uv venv --quiet --clear --python $$python $$venv && \
	             $(BIN)/uv pip install --quiet --python $$venv/bin/python --require-hashes --build-constraints requirements/tools.txt -r $$pins && \
	             touch $$venv/.whole; }; } && \
	        PYTHONPATH=$(CURDIR) FRUITS_PYTHON=$(abspath $(BIN))/python $$venv/bin/python -m pytest -k spark \
	            --ignore tests/conformance/test_crashes.py tests/conformance tests/spark_matrix; \
	        then passed="$$passed $$spark"; else failed="$$failed $$spark"; fi; \
	done; \
	echo "passed:$${passed:- none}; failed:$${failed:- none}; skipped:$${skipped:- none}"; \
	[ -n "$$passed" ] && [ -z "$$failed" ]

.PHONY: chaos
chaos: $(VENV)/.everything  ## faults by the hundred, counted: OPTIONS="--seed 2 driver --count 100" (hours; a full disk needs root, the clock a C compiler)
	$(BIN)/python -m tests.chaos $(OPTIONS)

.PHONY: test-hostile
test-hostile: $(VENV)/.everything  ## hostile input at length: every cut, every bomb, 200,000 files, 2,000 examples of each kind; a job suspended at every write (ten minutes)
	FRUITS_LONG=1 $(BIN)/python -m pytest --timeout 1800 tests/hostile tests/unit/jobs/test_ownership.py

.PHONY: test-peers
test-peers: $(VENV)/.everything  ## the tools that the benchmarks compare with, EfficientNetV2B0 and ResNet50, give the features of Fruits and of Keras (minutes)
	FRUITS_LONG=1 $(BIN)/python -m pytest tests/parity/test_peers.py tests/parity/test_tensorflow.py

.PHONY: scale
scale: $(VENV)/.everything  ## a simulated job of 100,000 partitions on Dask and on Spark: OPTIONS="--partitions 10000" (an hour)
	$(BIN)/python -m tests.scale $(OPTIONS)

.PHONY: test-stage
test-stage: $(VENV)/.everything  ## the wheels of a node of EMR, fetched, installed with no index, and a job run on them (230 MB)
	$(BIN)/python -m pytest tests/stage/test_stage.py

.PHONY: test-emr-seed
SEED = .venv-emr-seed
test-emr-seed: $(VENV)/.everything  ## the environment of emr-6.9.0 from its lock, and jobs in it on Spark 3.3.0 against S3 (Python 3.11; 600 MB)
	$(BIN)/uv venv --quiet --clear --python 3.11 $(SEED)
	$(BIN)/uv pip install --quiet --python $(SEED)/bin/python --require-hashes --build-constraints requirements/tools.txt \
	    -r requirements/spark-3.3.txt
	FRUITS_SPARK_3_3=$(abspath $(SEED))/lib/python3.11/site-packages $(BIN)/python -m pytest -s tests/stage/test_emr_seed.py

lint: $(VENV)/.everything  ## style, types, and what is known to be unsafe
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive fruits backends benchmarks

# Known for its vulnerabilities: where nothing is said of it, nothing is known of the others either.
VULNERABLE = pillow==8.0.0
AUDIT = $(BIN)/pip-audit --strict --disable-pip --progress-spinner off $(OPTIONS)
# The lanes of the Spark matrix are old on purpose, and install nothing outside of it.
AUDITED = requirements/light.txt requirements/tools.txt requirements/test.txt backends/aws/staging/requirements.txt \
    backends/aws/staging/requirements-glibc-2.17.txt

.PHONY: audit
audit: $(VENV)/.everything  ## known vulnerabilities of what is pinned, where their database can be reached
	@if ! $(AUDIT) --no-deps -r <(echo $(VULNERABLE)) 2>&1 | grep -q '^pillow .*PYSEC-'; then \
	    echo "NOT AUDITED: the database of vulnerabilities cannot be reached from here, or does not know those of" \
	        "$(VULNERABLE). Run it where it can be: nothing is known of $(AUDITED)." >&2; exit 1; \
	fi
	@for pins in $(AUDITED); do echo "$$pins"; $(AUDIT) -r $$pins || failed=1; done; [ -z "$$failed" ]

# No address of an index stands in it: package URLs take its place, and from 1.4 on the tool would name its own.
SBOM = $(BIN)/python -W ignore::UserWarning -m cyclonedx_py requirements --pyproject pyproject.toml --mc-type application \
    -i pkg:pypi --sv 1.3 --output-reproducible

.PHONY: sbom
sbom: $(VENV)/.everything  ## the bills of materials (CycloneDX), in dist: of the light set, and of a cluster's node
	@mkdir -p dist
	$(SBOM) requirements/light.txt --output-file dist/fruits.cdx.json
	$(SBOM) backends/aws/staging/requirements.txt --output-file dist/fruits-node.cdx.json

.PHONY: load
load: $(VENV)/.everything  ## load test of a server on this machine: REC=recogniser PHOTOS=folder OPTIONS="--soak 3600"
	$(BIN)/python -m benchmarks.load --recogniser "$(REC)" --photos "$(PHOTOS)" $(OPTIONS)

.PHONY: network
network: $(VENV)/.everything  ## rebuild the packaged MobileNetV2 from WEIGHTS=FILE (default: from its own tensors)
	$(BIN)/python -m fruits.network.rebuild "$(WEIGHTS)"

format: $(VENV)/.everything  ## put the style right
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# test.txt first; it constrains the others, because one environment contains them all.
lock: $(VENV)/.tools  ## pin all requirements of pyproject.toml by version and hash
	$(LOCK) --all-extras --group tools --overrides requirements/overrides.in pyproject.toml --output-file requirements/test.txt
	$(LOCK) --extra dask --extra serve pyproject.toml --constraints requirements/test.txt --output-file requirements/light.txt
	$(LOCK) --group tools --constraints requirements/test.txt --output-file requirements/tools.txt
	$(LOCK) --extra node --constraints requirements/test.txt pyproject.toml --output-file backends/aws/staging/requirements.txt
	$(BIN)/uv pip compile --quiet --python-platform x86_64-manylinux2014 --python-version 3.11 --only-binary :all: \
	    --generate-hashes --no-header $(OPTIONS) --extra dask --extra s3 pyproject.toml requirements/node-glibc-2.17.in \
	    --output-file backends/aws/staging/requirements-glibc-2.17.txt
	for lane in $(SPARKS); do \
	    $(BIN)/uv pip compile --quiet --universal --python-version $${lane#*:} --generate-hashes --no-header $(OPTIONS) \
	        requirements/spark-$${lane%:*}.in --output-file requirements/spark-$${lane%:*}.txt || exit 1; \
	done

test-pythons:  ## the fast tests on each of Python 3.11, 3.12 and 3.13 that is present
	@for version in 3.11 3.12 3.13; do \
	    for python in python$$version "$$HOME"/.pyenv/versions/$$version*/bin/python none; do \
	        $$python -c '$(USABLE)' 2>/dev/null && break; \
	    done; \
	    if [ $$python = none ]; then missing="$$missing $$version"; continue; fi; \
	    echo "Python $$version: $$python"; \
	    if $(MAKE) --no-print-directory test-fast VENV=.venv-$$version PYTHON=$$python; \
	        then passed="$$passed $$version"; else failed="$$failed $$version"; fi; \
	done; \
	echo "passed:$${passed:- none}; failed:$${failed:- none}; not present:$${missing:- none}"; \
	[ -n "$$passed" ] && [ -z "$$failed" ]

.PHONY: test-fast
test-fast: $(VENV)/.everything
	$(BIN)/python -m pytest -m "not slow" tests/unit tests/contract

clean:         ## remove generated files and the environments
	rm -rf .venv .venv-3.* .venv-spark-* .venv-emr-seed build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.tools: requirements/tools.txt
	@$(PYTHON) -c '$(USABLE)' 2>/dev/null || \
	    { echo "$(PYTHON) ($$($(PYTHON) --version 2>&1)) $$NO_PYTHON" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/tools.txt
	@touch $@

$(VENV)/.light: $(VENV)/.tools requirements/light.txt pyproject.toml
	$(INSTALL) --require-hashes -r requirements/light.txt
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.everything: $(VENV)/.light requirements/test.txt
	$(INSTALL) --require-hashes -r requirements/test.txt
	@touch $@
