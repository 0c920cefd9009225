# The targets that CI and people call. PYTHON is the interpreter of an environment with the [dev] extra.
PYTHON ?= .venv-dev/bin/python
PEERS ?= .venv-peers
# What fuzzing led by coverage damages, and for how long each.
FUZZ_TARGETS ?= journal work-folder plain.jsonl packed.jsonl.gz none.parquet nerd.json config.json
FUZZ_SECONDS ?= 600
# Where suites of others were put.
SUITES ?= outside-suites
# Where built packages go: a checkout with a wheel in it would be tried instead of the sources.
PACKAGES ?= $(or $(TMPDIR),/tmp)/nerd-onnx-packages

# What `make wheels` makes, and the interpreter that has its compiler.
WHEELS ?= manylinux_2_17_x86_64 manylinux_2_17_aarch64 macosx_11_0_arm64 win_amd64
ZIG ?= $(PYTHON)
# Programs of .ci/requirements-lint.txt: `make lint-tools` installs them there.
LINT ?= .venv-lint
# Where `make interpreters` installs the wheel.
INTERPRETERS ?= $(shell command -v python3.11 python3.12 python3.13 python3.14)

.PHONY: setup test test-slow soak soak-short state-machine fuzz fuzz-led-by-coverage outside-suites leaks engines lint layers types platforms portable native-sanitize transformers-js lint-tools lint-ci packages shipped audit sbom wheels-tools wheels interpreters lowest interface docs bench peers ci

setup:            ## an environment for work on the project
	python3 -m venv .venv-dev
	$(PYTHON) -m pip install -q -c constraints.txt -e '.[dev]'

test:             ## the tests of the README: a few minutes
	$(PYTHON) -m pytest -q

test-slow:        ## the tests marked slow, which the README's command leaves out, and those with examples, ten times as many
	NERD_TEST_PROFILE=$${NERD_TEST_PROFILE:-ci} $(PYTHON) -m pytest -q -m "(slow or hypothesis or examples) and not engines"

soak:             ## 1,000 kills at random moments and kills at every step of the disk protocol: an hour and more
	$(PYTHON) -m tests.durability.soak --forked --kills 1000 --seconds 7200 --model tests/data/models/int8 --log soak.json
	NERD_LONG=1 $(PYTHON) -m pytest -q -m "not engines" tests/durability/test_crashes.py

state-machine:    ## 2,000 random sequences of runs, kills, damage and changed options: about an hour
	$(PYTHON) -m tests.durability.state_machine --sequences 2000 --log state-machine.json

fuzz:             ## a million damaged files, journals and work folders, then each target led by coverage: hours
	$(PYTHON) -m tests.hostile.fuzz --cases 1000000 --seconds 7200
	$(MAKE) fuzz-led-by-coverage

fuzz-led-by-coverage:    ## FUZZ_SECONDS for each of FUZZ_TARGETS
	for target in $(FUZZ_TARGETS); do \
	  $(PYTHON) -m tests.hostile.coverage_fuzz $$target fuzz-corpus/$$target -max_total_time=$(FUZZ_SECONDS) || exit 1; done

outside-suites:   ## test files of others in the folder SUITES, such as parquet-testing, JSONTestSuite and blns.json; fetches nothing
	$(PYTHON) -m tests.hostile.outside_suites $(SUITES)

leaks:            ## memory over a long run: 20 minutes
	$(PYTHON) -m tests.durability.leaks --minutes 20 --log leaks.json

soak-short:       ## kills and damaged files for two minutes each; a leak shows only in the long form
	$(PYTHON) -m tests.durability.soak --kills 1000 --seconds 120
	$(PYTHON) -m tests.hostile.fuzz --seconds 120

engines:          ## real Ray, Spark, Delta and Iceberg, with workers that are killed; needs the command of CONTRIBUTING.md, and Java
	$(PYTHON) -m pytest -q -m engines -n 0 tests/engines

lint:             ## style, import direction, formatting
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

layers:           ## which package may import which: the contracts in pyproject.toml
	$(dir $(PYTHON))lint-imports pyproject.toml

types:            ## mypy, strict
	$(PYTHON) -m mypy

platforms:        ## mypy with the functions that Windows and macOS have: one that they lack belongs in nerd_onnx/machine/system.py
	for system in win32 darwin; do \
	  $(PYTHON) -m mypy --platform $$system --cache-dir .mypy_cache/$$system -p nerd_onnx || exit 1; done

portable:         ## the tests that need neither a shell nor signals
	$(PYTHON) -m pytest -q tests/inference tests/formats tests/convert tests/tagging tests/test_tagger.py

native-sanitize:  ## the native encoder's tests with the address, undefined-behaviour and thread sanitizers of g++
	NERD_TEST_NATIVE_FLAGS="-g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all" CXX=g++ \
	ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	$(PYTHON) -m pytest -q -n 0 tests/native/test_encoder.py -k "not subnormal"
	$(PYTHON) -m pytest -q -n 0 -m slow tests/native/test_threads.py

transformers-js:  ## bundles in transformers.js; needs Node and npm, and puts the package into PACKAGES/js
	npm install --prefix "$(PACKAGES)/js" --ignore-scripts --no-audit --no-fund @huggingface/transformers@4.3.2
	NERD_TRANSFORMERS_JS="$(PACKAGES)/js" $(PYTHON) -m pytest -q -n 0 tests/export/conversion/test_hub.py

lint-tools:       ## an environment for lint-ci, audit and licences, in the folder LINT
	python3 -m venv "$(LINT)"
	"$(LINT)/bin/python" -m pip install -q -r .ci/requirements-lint.txt

lint-ci:          ## workflows, the action, the Dockerfile, scripts and the Kubernetes example
	.ci/lint "$(LINT)/bin"

packages:         ## sdist and wheel in the folder PACKAGES, outside of the checkout, with checks of metadata and content
	@case "$$(realpath -m "$(PACKAGES)")" in "$(CURDIR)"/*) echo "PACKAGES must be outside of the checkout" >&2; exit 1;; esac
	$(PYTHON) -m build -q --outdir "$(PACKAGES)" .
	$(PYTHON) -m twine check --strict "$(PACKAGES)"/*.whl "$(PACKAGES)"/*.tar.gz
	$(dir $(PYTHON))check-wheel-contents --toplevel nerd_onnx,nerd_export "$(PACKAGES)"/*.whl

shipped:          ## the wheel of `make packages` and what it needs, installed in PACKAGES/shipped
	$(PYTHON) -m venv --clear --without-pip "$(PACKAGES)/shipped"
	$(PYTHON) -m pip --python "$(PACKAGES)/shipped/bin/python" install -q -c constraints.txt "$(PACKAGES)"/*.whl

audit: shipped    ## known vulnerabilities of what it needs; asks pypi.org, and fails if that does not know a version
	$(PYTHON) -m pip --python "$(PACKAGES)/shipped/bin/python" freeze --exclude nerd-onnx > "$(PACKAGES)/audit.txt"
	"$(LINT)/bin/pip-audit" --strict --progress-spinner off --disable-pip --no-deps -r "$(PACKAGES)/audit.txt"

sbom: shipped     ## licences.md, and a bill of materials of what it needs and of what is inside the wheel: PACKAGES/sbom.cdx.json
	$(PYTHON) docs/make_licences.py
	"$(LINT)/bin/cyclonedx-py" environment --pyproject pyproject.toml --mc-type library --output-reproducible \
	  -o "$(PACKAGES)/sbom.cdx.json" "$(PACKAGES)/shipped/bin/python"
	$(PYTHON) docs/make_licences.py "$(PACKAGES)/sbom.cdx.json"
	"$(LINT)/bin/python" .ci/check-sbom "$(PACKAGES)/sbom.cdx.json"

wheels-tools:     ## what `make wheels` needs beside PYTHON: a cross compiler, and the check of Linux wheels
	$(PYTHON) -m pip install -q ziglang auditwheel

wheels:           ## wheels for the systems in WHEELS, cross compiled; ZIG is an interpreter that has the packages ziglang and auditwheel
	@case "$$(realpath -m "$(PACKAGES)")" in "$(CURDIR)"/*) echo "PACKAGES must be outside of the checkout" >&2; exit 1;; esac
	for platform in $(WHEELS); do \
	  library=$$(ZIG="$(ZIG)" $(PYTHON) -m nerd_onnx.native.cross $$platform "$(PACKAGES)/native/$$platform") && \
	  NERD_BUILD_LIBRARY="$$library" NERD_BUILD_PLATFORM=$$platform $(PYTHON) -m build -q --wheel --outdir "$(PACKAGES)" . || exit 1; \
	  case $$platform in manylinux*) $(ZIG) -m auditwheel show "$(PACKAGES)"/nerd_onnx-*-$$platform.whl || exit 1;; esac; done
	$(dir $(PYTHON))check-wheel-contents --toplevel nerd_onnx,nerd_export "$(PACKAGES)"/*.whl

interpreters:     ## the wheel of `make packages` on each of INTERPRETERS, with the lowest and the highest versions of its dependencies
	for python in $(INTERPRETERS); do for how in lowest-direct highest; do \
	  .ci/try-wheel $$python $$how "$(PACKAGES)" "$(dir $(PYTHON))uv" || exit 1; done; done

lowest:           ## the lowest versions of the runtime's dependencies that pyproject.toml allows: resolved, installed, and run
	$(PYTHON) -m venv "$(PACKAGES)/lowest"
	$(PYTHON) -m uv pip compile -q --resolution lowest-direct --python "$(PACKAGES)/lowest/bin/python" -o "$(PACKAGES)/lowest.txt" pyproject.toml
	"$(PACKAGES)/lowest/bin/python" -m pip install -q -r "$(PACKAGES)/lowest.txt" "$(PACKAGES)"/*.whl
	"$(PACKAGES)/lowest/bin/nerd-tag" nerd_onnx/sample.jsonl "$(PACKAGES)/lowest.parquet"

interface: export LINE := $(LINE)
interface:        ## records a change of the public interface; LINE quotes its line of CHANGELOG.md
	$(PYTHON) docs/make_interface.py "$$LINE"

docs:             ## the pages, with what is made from the commands and from the reports; a dead link is an error
	$(PYTHON) docs/make_reference.py
	$(PYTHON) docs/make_engines.py
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict -q

bench:            ## the short benchmark, with its checks
	$(PYTHON) -m benchmarks --short --check

peers:            ## environments of the benchmarks' peers that need their own, in the folder PEERS
	for name in $(basename $(notdir $(wildcard benchmarks/requirements/*.txt))); do \
	  python3 -m venv $(PEERS)/$$name && \
	  $(PEERS)/$$name/bin/python -m pip install -q -c constraints.txt -r benchmarks/requirements/$$name.txt || exit 1; done

ci:               ## what must pass before a change lands
	.ci/run
