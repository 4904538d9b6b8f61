# make repro | test | env | ui | triton-env          PYTHON=python3.12 make repro   for another interpreter
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
DEFAULT := train,openvino,serve
TEST := $(DEFAULT),tensorrt,dev
EVERY := $(TEST)
ifneq ($(shell command -v nvidia-smi),)
EVERY := $(EVERY),cuda
endif

.PHONY: repro test env ui triton-env

repro: $(VENV)/.repro data
	dvc repro

test: $(VENV)/.test data
	pytest

env: $(VENV)/.env

ui: $(VENV)/.repro
	@case "$$MLFLOW_TRACKING_URI" in http*) echo "open $$MLFLOW_TRACKING_URI";; \
	*) mlflow ui --backend-store-uri $${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db} --host 127.0.0.1 --port 5000;; esac

# The default data set, from data_store/; never pulled over clips that are already there.
data: | $(VENV)/.repro
	dvc pull data.dvc

# One environment; each target adds what it needs. uv resolves and byte-compiles in parallel.
$(VENV)/bin/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv==0.13.8

# The real Triton, for `pytest -m triton`: an environment of its own, since its Python backend needs numpy < 2.
triton-env: .venv-triton/.done

.venv-triton/.done: | $(VENV)/bin/uv
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) .venv-triton
	$(BIN)/uv pip install --quiet --python .venv-triton/bin/python --no-deps nvidia-pytriton==0.7.0
	$(BIN)/uv pip install --quiet --python .venv-triton/bin/python numpy==1.26.4 onnxruntime==1.31.1
	touch $@

define install
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -c constraints.txt -e '.[$(1)]'
	touch $@
endef

$(VENV)/.repro: pyproject.toml constraints.txt | $(VENV)/bin/uv
	$(call install,$(DEFAULT))

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/uv
	$(call install,$(TEST))
	touch $(VENV)/.repro

$(VENV)/.env: pyproject.toml constraints.txt | $(VENV)/bin/uv
	$(call install,$(EVERY))
	touch $(VENV)/.repro $(VENV)/.test
