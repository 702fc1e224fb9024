# The suite in two commands: `make demo` and `make test`. `make help` lists the others.
PYTHON ?= python3
BENCHMARKS := $(sort $(wildcard benchmarks/[!_]*.py))

.NOTPARALLEL:
.PHONY: help demo test lint bench soak faults setup docs lock clean python $(BENCHMARKS)

help:
	@echo 'make demo    set up this machine, then show style transfer and detection for 30 s (out/demo/)'
	@echo '             INPUT=<video|folder of images|camera number>  STYLE=<image>  DURATION=<seconds>'
	@echo 'make test    set up (with torch) and run all tests; ARGS="-k name" is passed to pytest'
	@echo 'make lint    check the Python code with ruff'
	@echo 'make bench   run all benchmarks, one after the other; make benchmarks/<name>.py runs one'
	@echo 'make soak    run the whole suite with random faults, fail on growth and loss (out/soak/)'
	@echo '             MINUTES=<5>  SEED=<0, decides the faults>'
	@echo 'make faults  run the tests in tests/faults and write docs/faults.md from what they saw'
	@echo 'make setup   only what make demo needs before it starts'
	@echo 'make docs    write docs/parameters.md anew, from the declarations in the code'
	@echo 'make lock    choose versions for requirements/lock-*.txt anew, after a change beside them'
	@echo 'make clean   remove the environment, the build and all output'
	@echo 'PYTHON=<interpreter> chooses the Python (3.10, 3.11 or 3.12) for all of them'

python:
	@command -v $(PYTHON) >/dev/null || { echo 'set-up: missing: $(PYTHON); install with:' \
	  'apt install python3 python3-venv python3-dev' >&2; exit 1; }

# Bad input is reported before the slow set-up. `exec` lets Ctrl-C and signals reach the program itself.
demo: python
	@$(PYTHON) -m tools.check_input
	@$(PYTHON) -m tools.setup
	@exec .venv/bin/python -m muon_ad_nodes.demo $${INPUT:+--input "$$INPUT"} \
	  $${STYLE:+--style "$$STYLE"} $${DURATION:+--duration "$$DURATION"} --out out/demo

test: python
	@$(PYTHON) -m tools.setup learn
	@exec .venv/bin/python -m pytest $(ARGS)

lint: python
	@$(PYTHON) -m tools.setup lint
	@exec .venv/bin/ruff check .

bench: python
	@$(PYTHON) -m tools.setup learn
	@exec $(MAKE) --no-print-directory $(BENCHMARKS)

$(BENCHMARKS):
	@echo '== $@'
	@exec .venv/bin/python $@

soak: python
	@$(PYTHON) -m tools.setup
	@exec .venv/bin/python -m tools.soak $${MINUTES:+--minutes "$$MINUTES"} $${SEED:+--seed "$$SEED"}

faults: python
	@$(PYTHON) -m tools.setup learn
	@exec .venv/bin/python -m pytest tests/faults --write-fault-table

setup: python
	@$(PYTHON) -m tools.setup

docs: python
	@$(PYTHON) -m tools.setup
	.venv/bin/python -m muon_ad_nodes.document > docs/parameters.md

lock: python
	@$(PYTHON) -m tools.setup lint
	@for version in 3.10 3.11 3.12; do .venv/bin/python -m tools.lock $$version || exit 1; done

clean:
	rm -rf .venv out ros_ws/build ros_ws/install ros_ws/log .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
