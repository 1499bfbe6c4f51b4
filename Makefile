# Every target sets the machine up first, which is quick and silent when nothing is missing.
SWIFT ?= swift
PREFIX ?= /usr/local
PARE = .build/release/pare

.PHONY: help demo test long-test build install format format-check bench bench-runtime readme clean setup

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 16

demo: build ## Shrink the model that comes with Pare and show what it costs
	@$(PARE) demo

test: setup ## Build and run the fast tests
	$(SWIFT) build -c release --build-tests
	$(SWIFT) test -c release --skip-build

long-test: setup ## Run the long tests too: fuzzing, large files, model-sized checks
	$(SWIFT) build -c release --build-tests
	PARE_LONG_TESTS=1 $(SWIFT) test -c release --skip-build

build: setup ## Build the program in release
	$(SWIFT) build -c release --product pare

install: build ## Install to PREFIX (default /usr/local)
	install -d $(PREFIX)/lib/pare $(PREFIX)/bin
	install -m 755 $(PARE) $(PREFIX)/lib/pare/pare
	cp -R .build/release/Pare_Recipes.resources $(PREFIX)/lib/pare/
	ln -sf $(PREFIX)/lib/pare/pare $(PREFIX)/bin/pare

format: ## Rewrite sources in the project's format
	$(SWIFT) format -i -r Sources Tests Package.swift

format-check: ## Fail if a source is not in the project's format
	$(SWIFT) format lint --strict -r Sources Tests Package.swift

bench: build ## Measure speed and memory on a synthetic model (needs python3 with torch, safetensors, tokenizers)
	test -d .build/synthetic || python3 Scripts/make-synthetic-model.py --out .build/synthetic
	python3 Benchmarks/spine.py --pare $(PARE) --model .build/synthetic --out .build/spine.json

bench-runtime: build ## Compare the runtime with llama.cpp (needs llama-cpp-python besides)
	test -d .build/synthetic-32k || python3 Scripts/make-synthetic-model.py --out .build/synthetic-32k --vocabulary 32000
	python3 Benchmarks/runtime.py --pare $(PARE) --model .build/synthetic-32k --work .build/runtime --out .build/runtime.json
	python3 Benchmarks/quantize.py --pare $(PARE) --file .build/runtime/f16.gguf --work .build/runtime

readme: build ## Write the README's tables from those measurements, the small ones anew
	python3 Scripts/update-readme.py --pare $(PARE) --bench .build/spine.json --runtime .build/runtime.json

clean: ## Remove everything that was built
	rm -rf .build

setup:
	@Scripts/setup
