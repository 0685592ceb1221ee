"""What pytest-xdist makes of the marks in tests/conftest.py, which it ignores without a word where it does not fit pytest."""

from __future__ import annotations

import pytest


def test_a_file_stays_on_one_worker(request: pytest.FixtureRequest) -> None:
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("tests run in one process, or are not grouped")
    assert request.node.nodeid.endswith("@unit/test_workers.py")
