# The commands stand in .ci/run, so that a person and the judge run the same ones.
.DEFAULT_GOAL := build
.PHONY: build test short lint race fuzz cross demo e2e bench ci

build:
	.ci/run build

test:
	go test ./...

short:
	.ci/run short

lint:
	.ci/run vet lint laws

race:
	.ci/run race

# make fuzz FUZZTIME=30s searches for new inputs; without it the seeds run.
fuzz:
	FUZZTIME=$(FUZZTIME) .ci/run fuzz

cross:
	.ci/run cross

demo:
	.ci/run demo

e2e:
	.ci/run e2e

bench:
	go run ./cmd/tunesmith bench train --shape smollm2-135m --json

ci:
	.ci/run
