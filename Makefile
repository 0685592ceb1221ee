# make demo: the page on http://127.0.0.1:7860.  make check: style, types and unit tests, in about a minute.
# make test: everything that is checked, a real browser and the default checkpoint included.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Two at a time, which keep two cores busy. tests/conftest.py orders them.
PYTEST := $(RUN) -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

.PHONY: demo lint check test install install-dev chromium browsers format clean

demo: install
	$(RUN) app.py

lint: install-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

check: lint
	$(PYTEST) tests/unit

test: lint chromium
	$(PYTEST) tests

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

# torch first and by its exact version: on some indexes only this spelling gives the CPU build.
$(VENV)/.installed: requirements.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt requirements-serve.txt
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-dev.txt -r requirements-serve.txt -c constraints.txt
	touch $@

# A browser for the page's tests: the one on the machine, else Debian's, where apt and root are there.
chromium:
	@command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	  { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get -qq update && \
	    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium-headless-shell fonts-dejavu-core >/dev/null; } || \
	  echo "No Chromium, and no apt as root to install it: the browser tests will fail until it is there."

# Firefox and WebKit, in which tests/browser/test_other_browsers.py looks at the page where they are; make test installs neither.
browsers:
	@command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] || { echo "It takes apt, as root."; exit 1; }
	apt-get -qq update
	DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends firefox-esr webkit2gtk-driver xvfb fonts-dejavu-core >/dev/null

format:
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache
