# Each target sets up what it needs; the second run is quick.
.PHONY: demo install-device check test test-fast test-install docs reference lock licences sbom format setup-device setup-console setup-trainer setup-check setup-test setup-docs

P ?= edge

demo: setup-device  ## the main job, on the shipped synthetic camera
	.venv/bin/edge demo -c configs/demo.yaml

install-device:  ## this machine as a device, with services of systemd; OPTIONS="--extras kiosk"
	sudo scripts/install-device $(OPTIONS)

check: setup-check  ## formatting, lint, types, import contracts
	scripts/check

test: setup-test  ## all tests, or those of T=path
	scripts/test $(T)

test-fast: setup-test  ## the unit tests of one package, P=edge, without the slow ones
	scripts/test -m "not slow" tests/$(P)

test-install: setup-test  ## the device's image and scripts/install-device in a clean Debian; needs root and Debian's mirror
	scripts/apt-install debootstrap
	scripts/test tests/integration/test_install_device.py

docs: setup-docs  ## the documentation site, in build/site
	.venv-docs/bin/sphinx-build -q -W --keep-going -b html docs build/site
	@echo "docs: open build/site/index.html"

reference: setup-test  ## docs/reference, from the code
	.venv/bin/python scripts/make_reference.py

lock:  ## packaging/locks: exact versions with hashes; OPTIONS=--upgrade for the newest; then `make licences`
	scripts/lock $(OPTIONS)

licences: setup-test  ## docs/reference/licences.md, from the lock files and package metadata
	.venv/bin/python scripts/make_licences.py

sbom:  ## build/sbom: what a device is made of, as CycloneDX; LOCKS="device openvino" for more
	scripts/sbom $(LOCKS)

format: setup-check  ## format, and mend what can be mended
	.venv-check/bin/ruff check --fix --quiet .
	.venv-check/bin/ruff format --quiet .

setup-device setup-console setup-trainer setup-check setup-test setup-docs:  ## packages only; trainer: all that `edge-train learn` needs
	@scripts/setup $(@:setup-%=%)
