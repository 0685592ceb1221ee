"""Tiny random checkpoints, written to disk in their real layouts; a test's level is the folder that it lies in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from nemodiff.engine.local import Engine
from nemodiff.model.transformer import Transformer
from tests.helpers.checkpoints import open_engine, random_llama, write_chat, write_llama
from tests.helpers.official import random_ministral, write_nvidia

# One thread per process where several of pytest-xdist's workers share the cores, those that a test starts included:
# threads that meet in a forward wait for each other awake.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKERS > 1:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ.get("NEMODIFF_TEST_THREADS", "2" if WORKERS == 1 else "1")))

#: In which order the workers take what begins so, the longest name that fits: quick tests, the longest file, all of the
#: browser's, so that a worker starts its app and its Chromium once, the rest. Replicas come late, since their idle
#: processes take a tenth of two cores, beside files that fill the other worker's time.
ORDER = ("unit", "browser/test_survival.py", "browser", "", "replicas", "integration/test_ui")


def place(group: str) -> int:
    """Where a group comes in ORDER."""
    return ORDER.index(max((name for name in ORDER if group.startswith(name)), key=len))


@pytest.hookimpl(tryfirst=True)  # before xdist, which reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test with its level, and with what runs on one worker: a file, and all that asks for the replicas.
    Sort the groups for the workers, who take them in this order."""
    folder, places = Path(__file__).parent, {}
    for item in items:
        file = item.path.relative_to(folder)
        item.add_marker(file.parts[0])
        asks = {"replicas", "any_engine"} & set(getattr(item, "fixturenames", ()))
        group = "replicas" if asks else str(file)
        item.add_marker(pytest.mark.xdist_group(group))
        places[item] = place(group)
    items.sort(key=places.__getitem__)


def pytest_make_parametrize_id(val: object) -> str | None:
    """A long text is named by its beginning and its length, not by 100,000 characters."""
    return f"{val[:12]!a}... {len(val)}" if isinstance(val, str | bytes) and len(val) > 60 else None


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory) -> Path:
    return write_llama(random_llama(), tmp_path_factory.mktemp("checkpoints") / "tiny-llama")


@pytest.fixture(scope="session")
def chat_folder(tmp_path_factory) -> Path:
    """A tiny Llama with a tokenizer of its own: a character per token."""
    return write_chat(tmp_path_factory.mktemp("checkpoints") / "tiny-chat")


@pytest.fixture(scope="session")
def nvidia_folder(tmp_path_factory) -> Path:
    return write_nvidia(random_ministral(), tmp_path_factory.mktemp("checkpoints") / "tiny-nvidia", lora=True)


@pytest.fixture(scope="session")
def llama_engine(llama_folder) -> Engine:
    return open_engine(llama_folder)


@pytest.fixture(scope="session")
def nvidia_engine(nvidia_folder) -> Engine:
    return open_engine(nvidia_folder)


@pytest.fixture(scope="session")
def llama_model(llama_engine) -> Transformer:
    return llama_engine.model
