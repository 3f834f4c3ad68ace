# Each target sets up what it needs; the second run is quick.
.PHONY: demo test check setup-device setup-test

demo: setup-device
	.venv/bin/edge demo -c configs/demo.yaml

test: setup-test
	scripts/test

check: setup-test
	scripts/check

setup-device:
	@scripts/setup device

setup-test:
	@scripts/setup test
