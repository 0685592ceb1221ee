"""ui.live.models and its menu: what the page offers, fetching beside the engine, switching, and what goes wrong."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

import nemodiff
from nemodiff.errors import CheckpointError
from tests.helpers.hub_server import serve
from tests.helpers.locks import WatchedLock
from tests.helpers.official import random_ministral, write_nvidia
from tests.helpers.served import values
from ui import wire
from ui.live import models
from ui.live.desk import Desk
from ui.live.models import Checkpoints
from ui.page import build, checkpoint_menu
from ui.settings import Settings

WAIT = 20
REQUEST = nemodiff.Request(prompt_ids=(5, 6), max_new_tokens=3, modes=("ar",))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    first = write_nvidia(random_ministral(0), tmp_path / "first", tokenizer=True)
    return first, write_nvidia(random_ministral(1), tmp_path / "second", block_size=16)


def open_page(running: Path, *more: str, choose: bool = True) -> Checkpoints:
    settings = Settings(
        checkpoint=str(running), device="cpu", dtype="float32", choose=choose, checkpoints=tuple(map(str, more))
    )
    return Checkpoints(nemodiff.load(str(running), device="cpu", dtype="float32"), settings)


def switch(page: Checkpoints, name: Path | str, session: str = "owner") -> list[dict]:
    return [json.loads(state) for state in (*page.fetch(str(name), session), *page.swap(session))]


def offers(page: Checkpoints) -> dict[str, dict]:
    return {offer["name"]: offer for offer in json.loads(page.offers())["offers"]}


def test_offers_say_what_fits_what_is_fetched_and_under_which_licence(folders, monkeypatch, tmp_path) -> None:
    first, second = folders
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("nemodiff.model.memory.free_memory", lambda device: 20 * 10**9)
    page = open_page(first, second, tmp_path / "nowhere", "owner/other@v1")
    rows = offers(page)
    assert rows[str(first)]["running"] and rows[str(first)]["off"] is None
    assert rows[str(second)] == {"name": str(second), "title": "second", "off": None}
    small = rows["nvidia/Nemotron-Labs-Diffusion-3B"]
    assert small["off"] is None and small["fetch"] == "7.7 GB from the Hugging Face hub"
    assert small["licence"].startswith("NVIDIA's")
    assert small["card"] == "https://huggingface.co/nvidia/Nemotron-Labs-Diffusion-3B"
    assert "needs about 59.4 GB of memory on cpu, and 20.0 GB" in rows["nvidia/Nemotron-Labs-Diffusion-14B-Base"]["off"]
    assert rows["owner/other@v1"]["card"] == "https://huggingface.co/owner/other"
    assert rows["owner/other@v1"]["fetch"] == "its files from the Hugging Face hub"


def test_a_folder_that_cannot_be_loaded_is_off_and_says_why(folders, tmp_path) -> None:
    first, second = folders
    cut = second / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-10])
    page = open_page(first, second)
    assert "model.safetensors cannot be read" in offers(page)[str(second)]["off"]
    (state,) = switch(page, second)
    assert "second cannot be loaded: second/model.safetensors cannot be read" in state["error"]
    assert page.engine.generate(REQUEST).lanes[0].tokens


def test_a_switch_frees_the_old_engine_and_takes_the_new_defaults(folders) -> None:
    first, second = folders
    page = open_page(first, second)
    old = page.engine
    states = switch(page, second)
    assert [state.get("step", {}).get("what") for state in states] == ["wait", "load", None]
    assert states[0]["running"]["checkpoint"] == "first" and states[-1]["running"]["checkpoint"] == "second"
    assert states[-1]["running"]["attention"] == page.engine.attention
    assert old.weight_bytes == 0 and page.defaults["block"] == 16
    assert page.engine.generate(REQUEST).lanes[0].tokens
    assert offers(page)[str(second)]["running"]
    assert switch(page, folders[0])[-1]["running"]["checkpoint"] == "first"
    elsewhere = switch(page, "owner/elsewhere")[-1]
    assert elsewhere["error"] == "This page does not offer that checkpoint: choose one of its list."


def test_a_failed_load_leaves_the_running_engine(folders, monkeypatch) -> None:
    first, second = folders
    page = open_page(first, second)
    running = page.engine

    def fail(*_args):
        raise CheckpointError("second has gone bad.")

    monkeypatch.setattr("nemodiff.engine.loading.load_model", fail)
    assert switch(page, second)[-1]["error"] == "second has gone bad."
    assert page.engine is running and running.generate(REQUEST).lanes[0].tokens


def test_where_both_do_not_fit_a_failed_load_goes_back(folders, monkeypatch) -> None:
    first, second = folders
    page = open_page(first, second)
    old, size = page.engine, page.engine.weight_bytes
    # Room for one: the old one is closed before the new one's weights are read.
    monkeypatch.setattr("nemodiff.model.memory.free_memory", lambda device: 0 if old.weight_bytes else 2 * size)
    load = nemodiff.engine.loading.load_model

    def fail_once(folder, *rest):
        if folder.name == "second":
            raise CheckpointError("second has gone bad.")
        return load(folder, *rest)

    monkeypatch.setattr("nemodiff.engine.loading.load_model", fail_once)
    monkeypatch.setattr(
        "nemodiff.engine.loading.shortage",
        lambda needed, device, freed=0, config=None: None if freed or not old.weight_bytes else "it is full",
    )
    state = switch(page, second)[-1]
    assert state["error"] == "second has gone bad." and state["running"]["checkpoint"] == "first"
    assert page.engine is not old and page.engine.generate(REQUEST).lanes[0].tokens
    shutil.rmtree(first)
    old = page.engine
    state = switch(page, second)[-1]
    assert state["running"] is None and "Unknown checkpoint" in state["problem"]


def test_a_run_that_goes_on_ends_before_the_old_engine_is_freed(folders) -> None:
    first, second = folders
    page = open_page(first, second)
    page.engine._lock = lock = WatchedLock()
    running = page.engine.stream(nemodiff.Request(prompt_ids=(5, 6), max_new_tokens=50, modes=("ar",), ignore_eos=True))
    next(running)
    done = threading.Event()
    thread = threading.Thread(target=lambda: (switch(page, second), done.set()))
    thread.start()
    assert lock.wanted.wait(WAIT)
    assert not done.is_set() and page.engine.checkpoint == "first"
    assert len(list(running)) == 49
    thread.join(WAIT)
    assert done.is_set() and page.engine.checkpoint == "second"


def test_generate_and_stop_on_watch_leave_the_same_pages_sweep_and_switch_in_the_line(folders, tmp_path) -> None:
    first, second = folders
    where = {"device": "cpu", "dtype": "float32"}
    settings = Settings(recordings=tmp_path, checkpoint=str(first), checkpoints=(str(second),), choose=True, **where)
    desk, visitor = Desk(settings), SimpleNamespace(session_hash="s", client=None, headers={})
    page = build.build(nemodiff.load(str(first), **where), settings, desk=desk)
    functions = {one.fn.__qualname__: one.fn for one in page.fns.values() if one.fn}
    compare = next(one.fn for one in page.fns.values() if one.fn and one.fn.__name__ == "compare")
    other = desk.line.enter("other")  # who has the model meanwhile
    list(functions["Switch.fetch"](gr.EventData(None, str(second)), visitor))
    plan = (["JSON person"], "4", "0.9", 4, "", ["linear"], 1, ["confidence"], [], "auto", "0", True)
    switch, sweep = functions["Switch.swap"](visitor), compare(*plan, None, visitor)
    next(switch), next(sweep), next(sweep)
    generate, tickets = functions["Watch._generate.<locals>.generate"], ["0" * 32, "1" * 32]
    runs = [generate(*values(prompt="hi", picture=f"{ticket}\n"), visitor) for ticket in tickets]
    assert ["come first" in next(run) for run in runs] == [True, True]
    assert desk.line.waiting == 3  # the switch, the sweep and the later run
    functions["Watch.stop"](gr.EventData(None, json.dumps([*tickets, "sweep s", "checkpoint s"])))
    assert [json.loads(list(run)[-1])["error"] for run in runs] == [wire.STOPPED] * 2
    assert desk.line.waiting == 2
    sweep.close()
    other.leave()
    *_, last = switch
    assert json.loads(last[0])["running"]["checkpoint"] == "second"


def test_only_an_owner_who_allows_it_has_a_choice(folders, tmp_path) -> None:
    first, second = folders
    page = open_page(first, second, choose=False)
    (state,) = switch(page, second)
    assert state["error"] == "This page does not let its visitors choose the checkpoint."
    assert state["choose"] is False and page.engine.checkpoint == "first"
    for choose in (False, True):
        built = build.build(page.engine, Settings(recordings=tmp_path, choose=choose))
        names = {function.name for function in built.fns.values()}
        assert names >= {"fetch", "swap"} if choose else not names & {"fetch", "swap"}


def test_nothing_is_swapped_that_was_not_fetched(folders) -> None:
    page = open_page(*folders)
    assert list(page.swap("owner")) == []
    fetched = list(page.fetch(str(folders[1]), "one visitor"))
    assert json.loads(fetched[-1]) and list(page.swap("another visitor")) == []
    page.cancel("one visitor")  # fetched, and waiting for a run to end
    assert list(page.swap("one visitor")) == [] and page.engine.checkpoint == "first"


def test_visitors_who_are_gone_are_forgotten(folders, monkeypatch) -> None:
    monkeypatch.setattr(models, "READY", 3)
    page = open_page(*folders)
    for k in range(8):
        list(page.fetch(str(folders[1]), f"visitor {k}"))
    page.cancel("nobody")
    assert list(page._ready) == ["visitor 5", "visitor 6", "visitor 7"]
    assert not page._fetches
    assert not page.ready("visitor 0") and page.ready("visitor 7")


@pytest.fixture
def hub(tmp_path, folders, monkeypatch):
    with serve(folders[1]) as running:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", running.url)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            running.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 4096)
        yield running


def test_a_fetch_shows_its_progress_and_is_loaded(folders, hub, monkeypatch) -> None:
    page = open_page(folders[0], "owner/tiny")
    assert "fetch" in offers(page)["owner/tiny"]
    seen = []
    monkeypatch.setattr(models._Fetch, "_progress", lambda self, *counts: seen.append(counts))
    states = switch(page, "owner/tiny")
    assert states[-1]["running"]["checkpoint"] == "owner/tiny"
    total = sum(file.stat().st_size for file in folders[1].iterdir())
    assert seen[-1] == (total, total) and len(seen) > 10
    assert "fetch" not in offers(page)["owner/tiny"]


def test_a_cancelled_fetch_keeps_what_arrived_and_the_running_engine(folders, hub, monkeypatch, tmp_path) -> None:
    page = open_page(folders[0], "owner/tiny")
    half, held = threading.Event(), threading.Event()
    told = models._Fetch._progress

    def wait_half_way(self, done, total):
        if done > total / 2 and not half.is_set():
            half.set()
            assert held.wait(WAIT)
        told(self, done, total)

    monkeypatch.setattr(models._Fetch, "_progress", wait_half_way)
    states = page.fetch("owner/tiny", "owner")
    assert json.loads(next(states))["step"]["what"] == "fetch"
    assert half.wait(WAIT)
    assert "error" not in json.loads(page.cancel("owner"))
    [last] = map(json.loads, states)
    assert last.keys().isdisjoint(("error", "step"))  # what runs
    held.set()
    assert list(page.swap("owner")) == []
    assert sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*.incomplete")) > 4096
    assert page.engine.generate(REQUEST).lanes[0].tokens
    assert switch(page, "owner/tiny")[-1]["running"]["checkpoint"] == "owner/tiny"
    assert hub.ranges  # went on from what was there


@pytest.mark.parametrize(
    ("refusal", "says"),
    [((403, {"X-Error-Code": "GatedRepo"}), "is gated"), ((500, {}), "could not be fetched from the hub")],
)
def test_what_the_hub_refuses_is_one_sentence(folders, hub, refusal, says) -> None:
    page = open_page(folders[0], "owner/tiny")
    hub.refusal = refusal
    error = switch(page, "owner/tiny")[-1]["error"]
    assert says in error and "\n" not in error
    assert page.engine.generate(REQUEST).lanes[0].tokens


def test_the_header_writes_no_html() -> None:
    assert "${" not in checkpoint_menu.template() and "{{" not in checkpoint_menu.template()
    code = checkpoint_menu.script()
    assert not any(word in code for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval("))


@pytest.mark.parametrize(
    ("environment", "allowed"),
    [
        ({}, True),
        ({"GRADIO_SERVER_NAME": "localhost"}, True),
        ({"GRADIO_SERVER_NAME": "0.0.0.0"}, False),
        ({"GRADIO_SHARE": "True"}, False),
        ({"SPACE_ID": "someone/space", "GRADIO_SERVER_NAME": "127.0.0.1"}, False),
        ({"NEMODIFF_CHOOSE": "0"}, False),
        ({"NEMODIFF_CHOOSE": "1", "GRADIO_SERVER_NAME": "0.0.0.0"}, True),
    ],
)
def test_who_may_choose(monkeypatch, environment, allowed) -> None:
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SHARE", "SPACE_ID", "NEMODIFF_CHOOSE", "NEMODIFF_CHECKPOINTS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environment().choose is allowed


def test_further_checkpoints_come_from_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("NEMODIFF_CHECKPOINTS", " here/one, owner/two,")
    assert Settings.from_environment().checkpoints == ("here/one", "owner/two")


def test_graphs_are_asked_for_when_switching(folders, monkeypatch) -> None:
    monkeypatch.setenv("NEMODIFF_GRAPHS", "1")
    changed = {"device": "cpu", "checkpoint": str(folders[0]), "choose": True}
    settings = Settings.from_environment().model_copy(update=changed)
    page = Checkpoints(nemodiff.load(str(folders[1]), device="cpu"), settings)
    assert "CUDA graphs need a GPU" in switch(page, folders[0])[-1]["error"]


def test_without_an_engine_the_header_says_why() -> None:
    state = json.loads(Checkpoints(None, Settings(), "No weights.").state())
    assert (state["running"], state["problem"]) == (None, "No weights.")
    stub = SimpleNamespace(checkpoint="<img src=x>", device="cpu", dtype="float32", attention="SDPA")
    assert json.loads(Checkpoints(stub, Settings()).state())["running"]["checkpoint"] == "<img src=x>"
