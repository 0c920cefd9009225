# The targets that CI and people call. PYTHON is the interpreter of an environment with the [dev] extra.
PYTHON ?= .venv-dev/bin/python
PEERS ?= .venv-peers

.PHONY: setup test test-slow soak engines lint layers types native-sanitize wheel docs bench peers ci

setup:            ## an environment for work on the project
	python3 -m venv .venv-dev
	$(PYTHON) -m pip install -q -c constraints.txt -e '.[dev]'

test:             ## the tests of the README: a few minutes
	$(PYTHON) -m pytest -q

test-slow:        ## the tests marked slow, which the README's command leaves out
	$(PYTHON) -m pytest -q -m slow

soak:             ## the long forms: kills, every step of the disk protocol, damaged files, leaks; an hour and more
	$(PYTHON) -m tests.durability.soak --kills 300 --log soak.json
	NERD_LONG=1 $(PYTHON) -m pytest -q -m "not engines" tests/durability/test_crashes.py
	$(PYTHON) -m tests.hostile.fuzz --cases 1000000 --seconds 3600
	$(PYTHON) -m tests.durability.leaks --minutes 20 --log leaks.json

engines:          ## real Ray and Spark, with workers that are killed; needs the [ray] and [spark] extras and Java
	$(PYTHON) -m pytest -q -m engines -n 0 tests/engines

lint:             ## style, import direction, formatting
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

layers:           ## which package may import which: the contracts in pyproject.toml
	$(dir $(PYTHON))lint-imports pyproject.toml

types:            ## mypy, strict
	$(PYTHON) -m mypy

native-sanitize:  ## the native encoder's tests with the address and undefined-behaviour sanitizers of g++
	NERD_TEST_NATIVE_FLAGS="-g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all" CXX=g++ \
	ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	$(PYTHON) -m pytest -q -n 0 tests/native/test_encoder.py -k "not subnormal"

wheel:            ## the wheel, and what is in it
	$(PYTHON) -m build --wheel
	$(dir $(PYTHON))check-wheel-contents --toplevel nerd_onnx,nerd_export dist/*.whl

docs:             ## the pages, with a reference made from the commands; a dead link is an error
	$(PYTHON) docs/make_reference.py
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict -q

bench:            ## the short benchmark, with its checks
	$(PYTHON) -m benchmarks --short --check

peers:            ## environments of the benchmarks' peers that need their own, in the folder PEERS
	for name in $(basename $(notdir $(wildcard benchmarks/requirements/*.txt))); do \
	  python3 -m venv $(PEERS)/$$name && \
	  $(PEERS)/$$name/bin/python -m pip install -q -c constraints.txt -r benchmarks/requirements/$$name.txt || exit 1; done

ci:               ## what must pass before a change lands
	.ci/run
