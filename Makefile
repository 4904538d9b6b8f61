# make repro | test | env | ui          PYTHON=python3.12 make repro   for another interpreter
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
DEFAULT := train,openvino
TEST := $(DEFAULT),tensorrt,dev
EVERY := $(TEST)
ifneq ($(shell command -v nvidia-smi),)
EVERY := $(EVERY),cuda
endif

.PHONY: repro test env ui

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
