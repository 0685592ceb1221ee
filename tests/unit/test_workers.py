"""What pytest-xdist makes of the marks of tests/conftest.py: without a word nothing, where it does not fit pytest."""

from __future__ import annotations

import pytest


def test_a_file_stays_on_one_worker(request: pytest.FixtureRequest) -> None:
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("tests run in one process, or are not grouped")
    assert request.node.nodeid.endswith("@unit/test_workers.py")
