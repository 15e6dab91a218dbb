# dspgate: few targets, each one readable line; CI runs the same ones.
SHELL := /bin/bash
GO ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
ERRCHECK := github.com/kisielk/errcheck@v1.30.0
SEEDS ?= 2000
N ?= 20
FUZZTIME ?= 20s
DETECTION ?= ../shared/detection
export DSPGATE_ENVOY ?= $(CURDIR)/.tools/envoy

.PHONY: help
help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

.PHONY: run
run: tools build ## everything on this machine, until Ctrl-C (dspgate demo; ARGS="--sidecars 2")
	@bin/dspgate demo $(ARGS)

.PHONY: build
build: ## bin/dspgate
	@$(GO) build -trimpath -o bin/dspgate ./cmd/dspgate

.PHONY: tools
tools: ## Envoy and Redis into .tools/, when they are missing
	@scripts/tools.sh

.PHONY: test
test: test-tools build lint unit race e2e ## everything: lint, unit, race, simulation, end to end

.PHONY: test-tools
test-tools:
	@scripts/tools.sh test

.PHONY: lint
lint: ## gofmt, vet, staticcheck, errcheck
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo "lint: run gofmt -w on the files above" >&2; exit 1; }
	@$(GO) vet ./...
	@$(GO) run $(STATICCHECK) ./...
	@$(GO) run $(ERRCHECK) -ignoretests -exclude scripts/errcheck.txt ./...

.PHONY: unit
unit: ## all tests that start no demo
	@GO=$(GO) scripts/gotest.sh $$($(GO) list ./... | grep -v -E '/(e2e|e2e/console|cmd/dspgate|chaos)$$')

.PHONY: race
race: ## the concurrent packages under the race detector, which makes pools allocate
	@GO=$(GO) scripts/gotest.sh -race -short -skip 'NotAllocate|Efficiency|PlantedFaults' ./ratelimit/... ./registry/... ./authz/... ./control/... ./envoy/extauthz/... ./envoy/extproc/... ./envoy/accesslog/...

.PHONY: sim
sim: ## the fence in simulation: SEEDS=20000 lives, or SEED=7 again with its history
	@GOGC=800 $(GO) test ./authz -run TestFenceHoldsInSimulation -count=1 -timeout 60m -v -args -sim.seeds $(SEEDS) $(if $(SEED),-sim.seed $(SEED))

.PHONY: sim-limits
sim-limits: ## the limits in simulation: SEEDS=20000 lives from FIRST=1 on, or SEED=7 again with its history
	@$(GO) test ./ratelimit -run TestNoLimitIsExceededInSimulation -count=1 -timeout 60m -v -args -limits.seeds $(SEEDS) $(if $(FIRST),-limits.first $(FIRST)) $(if $(SEED),-limits.seed $(SEED))

.PHONY: e2e
e2e: tools build ## real Envoy and Redis: the cases, the stories, a few chaos trials
	@GO=$(GO) scripts/gotest.sh ./cmd/dspgate ./e2e/...
	@GO=$(GO) scripts/gotest.sh ./chaos

.PHONY: chaos
chaos: tools build ## N=20 trials of real processes under faults, judged; SEED=7 begins there, ADD=1 counts earlier runs in
	@$(GO) run ./chaos -n $(N) -seed $(or $(SEED),1) $(if $(ADD),-add)

.PHONY: chaos-planted
chaos-planted: tools ## the same trials must catch each fault planted in a build of its own
	@$(GO) build -trimpath -tags planted -o bin/dspgate-planted ./cmd/dspgate
	@$(GO) run ./chaos -dspgate bin/dspgate-planted -planted all -n 30 -seed $(or $(SEED),1)

.PHONY: kill
kill: ## the control plane killed at random points of every workflow: SEED=7 begins there, SHARE=0.5 of the commands
	@$(GO) test ./cmd/dspgate -run TestKilledAtAnyPointOfAnyWorkflow -count=1 -timeout 20m -v -args -kill.seed $(or $(SEED),1) -kill.share $(or $(SHARE),0.5)

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME each
	@scripts/fuzz.sh $(FUZZTIME)

.PHONY: schemathesis
schemathesis: ## sends the API what its description allows and forbids, as each role: EXAMPLES=20 SEED=7 for other cases
	@scripts/tools.sh schemathesis
	@$(GO) test ./e2e/console -run TestC11Schemathesis -count=1 -timeout 90m -v -args -schemathesis.whole -schemathesis.examples $(or $(EXAMPLES),1) -schemathesis.seed $(or $(SEED),1)

.PHONY: bench-authz
bench-authz: tools build ## through real Envoy, beside a stock no-op authorizer
	@$(GO) run ./bench/authz

.PHONY: bench-fence
bench-fence: tools build ## how soon a suspend returns with 200 sidecars, beside the bare fan-out
	@$(GO) run ./bench/fence

.PHONY: bench-limits
bench-limits: tools build ## ten sidecars on one limit, beside three designs that others use
	@$(GO) run ./bench/limits

.PHONY: bench-control
bench-control: tools build ## imports 100,000 products, and reads every listing, filter and search beside Redis
	@$(GO) run ./bench/control

.PHONY: bench-detect
bench-detect: ## the anomaly scorer on labelled public streams; DETECTION=folder of the data and its scorers
	@$(GO) run ./bench/detect -detection $(DETECTION)

.PHONY: bench-watch
bench-watch: ## made-up products and attackers through the watcher, in virtual time; ARGS="-attack-seed 7 -v"
	@$(GO) run ./bench/traffic $(ARGS)

.PHONY: clean
clean: ## forget the build and the demo's data
	@rm -rf bin .run bench/out
