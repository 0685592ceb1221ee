"""The default checkpoint, and replicas behind Ray Serve."""

from __future__ import annotations

import pytest

import nemodiff
from nemodiff.engine.local import Engine
from tests.helpers.checkpoints import open_engine
from tests.helpers.replicas import Replicas
from ui.backends.remote import connect


@pytest.fixture(scope="session")
def replicas(chat_folder, tmp_path_factory):
    """Two replicas of `chat_folder` behind Ray Serve."""
    pytest.importorskip("ray", reason="it comes with requirements-serve.txt")
    log = tmp_path_factory.mktemp("serve") / "serve.log"
    with Replicas(str(chat_folder), log, "--replicas", "2", "--device", "cpu", "--dtype", "float32") as running:
        yield running


@pytest.fixture(scope="session", params=["here", "behind Ray Serve"])
def any_engine(request, chat_folder):
    """One checkpoint, loaded here and behind Ray Serve."""
    if request.param == "here":
        return open_engine(chat_folder)
    return connect(request.getfixturevalue("replicas").address)


@pytest.fixture(scope="session")
def real_engine() -> Engine:
    """The default checkpoint: the real base weights (fetched on first use) with the bundled adapter."""
    return nemodiff.load()
