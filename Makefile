# All set-up happens by itself: system packages (Debian, as root), a virtual environment in .venv,
# pinned Python packages. The second time it takes no time.
SHELL := /bin/bash
PY := .venv/bin/python
STAMP := .venv/.installed
TEST ?=
TEST_PACKAGES := curl systemd mmdebstrap buildah containerd runc containernetworking-plugins chromium-headless-shell
export PATH := $(CURDIR)/.venv/bin:/usr/sbin:/sbin:$(PATH)

.PHONY: help setup demo lab test test-fast mutants fuzz lint bench image release docs generate pictures pins clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## install what is missing (system packages, virtual environment)
	@lab/install-packages

$(STAMP): setup.cfg requirements.txt
	@lab/install-packages
	@echo "Installing the Python packages of requirements.txt into .venv"
	@python3 -m venv .venv
	@.venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	@.venv/bin/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

demo: setup ## the main job in about a minute: a bare-metal cluster on this machine, with real routers
	@$(PY) -m lab.demo $(RECORDINGS)

lab: setup ## the same cluster, left running for you to look around
	@$(PY) -m lab.hold

lint: setup ## ruff, mypy --strict, the import contracts
	@ruff check . && ruff format --check .
	@mypy
	@lint-imports --no-logo

test: lint ## everything: lint and all tests, on real routers, kernels and a real API server. Or TEST=tests/core
	@lab/install-packages $(TEST_PACKAGES)
	@$(PY) -m $(if $(TEST),pytest $(TEST),tests.gate)

test-fast: lint ## the everyday loop: without the Kubernetes control plane
	@lab/install-packages $(TEST_PACKAGES)
	@$(PY) -m $(if $(TEST),pytest $(TEST) -m "not cluster",tests.gate --without-cluster)

mutants: setup ## does a test fail for each decision of core that is changed? Options: MUTANTS="--only lease --all"
	@$(PY) -m tests.mutants --json bench/results/mutants.json $(MUTANTS)

fuzz: setup ## coverage-guided fuzzing of all readers. Options: FUZZ="frames hellos --seconds 3600" (20 s each by default)
	@$(PY) -m tests.fuzz $(FUZZ)

bench: setup ## benchmarks: tables on the screen, JSON in bench/results/
	@$(PY) -m bench

image: ## the container image, as root on Debian without docker: build/image/porterlb.tar (BASE=..., TAG=...)
	@lab/install-packages mmdebstrap buildah
	@image/build

release: setup ## dist/: wheel, sdist, chart, SBOM, checksums. Options: RELEASE="--image --key minisign.key"
	@$(PY) -m release $(RELEASE)

docs: setup ## the documentation site: build/site (broken links are errors)
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet
	@echo "build/site/index.html (to search: python3 -m http.server -d build/site)"

generate: setup ## write the files that are made from others: CRDs of the chart, reference pages of docs/
	@cp porterlb/crds/*.yaml charts/porterlb/files/crds/
	@$(PY) docs/configuration.py
	@$(PY) docs/reference.py

pictures: setup ## make the pictures of docs/images again, as root: a lab runs, and a node of it loses power
	@lab/install-packages chromium-headless-shell
	@PYTHONPATH=$(CURDIR) $(PY) docs/screenshots.py

pins: ## write requirements.txt (from what .venv holds) and the image's, with hashes, anew
	@{ echo '# Every Python package that development and tests use, pinned. Made by `make pins`.'; \
	   .venv/bin/pip freeze --exclude-editable; } > requirements.txt
	@image/pins

clean: ## remove what set-up and the tests made in this folder
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
