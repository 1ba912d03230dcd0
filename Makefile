# The binary goes to bin/, which git ignores.

# One set of flags for all targets, so that nothing is compiled twice.
export CGO_ENABLED = 0
export GOFLAGS    := $(shell go env GOFLAGS) -trimpath

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.0
FUZZ        = go test -run '^$$' -fuzztime 30000x -fuzzminimizetime 100x

.PHONY: help run build test check bench
.DEFAULT_GOAL := help

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-8s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## start the server on config.json
	@exec bin/number-masking

build: ## build the static binary bin/number-masking
	go build -o bin/number-masking .

test: ## run the tests
	go test ./...

check: ## formatting, vet, linter, race detector, some seconds of each fuzz target
	@unformatted=$$(gofmt -s -l .); [ -z "$$unformatted" ] || { echo "run gofmt -s -w on: $$unformatted"; exit 1; }
	go mod tidy -diff
	go vet ./...
	GOARCH=386 go vet ./...
	GOOS=windows go vet ./...
	GOOS=darwin go vet ./...
	go run $(STATICCHECK) ./...
	CGO_ENABLED=1 go test -race ./...
	$(FUZZ) -fuzz '^FuzzNumber$$' .
	$(FUZZ) -fuzz '^FuzzConfig$$' .
	$(FUZZ) -fuzz '^FuzzAnswer$$' .

bench: ## measure an answer, loopback beside a bare handler, a million pairings
	go test -run '^$$' -bench . .
