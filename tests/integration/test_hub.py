"""Fetching from a hub on this machine: progress, revisions, refusals, a lost connection, resuming, no network."""

import shutil

import pytest

import nemodiff
from nemodiff.checkpoints import hub
from nemodiff.errors import CheckpointError
from tests.helpers.hub_server import COMMIT, serve


@pytest.fixture
def server(tmp_path, monkeypatch, nvidia_folder):
    folder = shutil.copytree(nvidia_folder, tmp_path / "repository")
    (folder / "modeling_remote.py").write_text("raise SystemExit('remote code ran')")
    with serve(folder) as running:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", running.url)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            running.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        yield running


def refuse(name, says):
    with pytest.raises(CheckpointError, match=says) as error:
        hub.fetch(name)
    assert "\n" not in str(error.value)


def test_a_repository_is_fetched_once_and_told(server, nvidia_folder):
    lines = []
    folder = hub.fetch("owner/tiny", lines.append)
    names = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert names == {str(file.relative_to(nvidia_folder)) for file in nvidia_folder.rglob("*") if file.is_file()}
    assert "Its licence: https://huggingface.co/owner/tiny" in lines[0]
    assert any(" of " in line for line in lines[1:])
    again = []
    assert hub.fetch("owner/tiny", again.append) == folder
    assert again == []


def test_a_revision_can_be_pinned(server):
    assert hub.fetch(f"owner/tiny@{COMMIT}") == hub.fetch("owner/tiny@v1")
    refuse("owner/tiny@v2", "has no revision 'v2'")


def test_a_fetched_repository_does_without_a_network(server, monkeypatch):
    folder = hub.fetch("owner/tiny")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert hub.fetch("owner/tiny") == folder
    refuse("owner/other", "could not be fetched")


@pytest.mark.parametrize(
    ("refusal", "says"),
    [
        ((403, {"X-Error-Code": "GatedRepo"}), "is gated: accept its licence at https://huggingface.co/owner/tiny"),
        ((403, {"X-Error-Message": "Access to this resource is disabled."}), "withdrawn"),
        ((404, {"X-Error-Code": "RepoNotFound"}), "no repository 'owner/tiny'"),
        ((403, {}), "refuses owner/tiny to this login"),
        ((500, {}), "could not be fetched"),
    ],
)
def test_refusals(server, refusal, says):
    server.refusal = refusal
    refuse("owner/tiny", says)


def test_a_lost_connection_keeps_what_arrived(server, monkeypatch, tmp_path, nvidia_engine):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 4096)  # what is written at once
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    size = (server.folder / "model.safetensors").stat().st_size
    server.cut = 20_000
    refuse("owner/tiny", "could not be fetched.*what arrived is kept")
    partial = sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*.incomplete"))
    assert 0 < partial < size
    request = nemodiff.Request(prompt_ids=(5, 6), max_new_tokens=2, modes=("ar",))
    assert nvidia_engine.generate(request).lanes[0].tokens  # an engine that runs is not touched
    server.cut, server.gone = None, False
    folder = hub.fetch("owner/tiny")
    assert server.ranges == [f"bytes={partial}-"]  # went on from there
    assert (folder / "model.safetensors").read_bytes() == (server.folder / "model.safetensors").read_bytes()


def test_access_that_is_lost_half_way_keeps_what_arrived(server, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 4096)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    server.cut = 20_000
    refuse("owner/tiny", "could not be fetched")
    server.cut, server.gone, server.revoked = None, False, (403, {"X-Error-Code": "GatedRepo"})
    refuse("owner/tiny", "is gated: accept its licence")
    assert sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*.incomplete"))
    server.revoked = None
    assert (hub.fetch("owner/tiny") / "model.safetensors").is_file()


def test_what_watches_the_progress_may_end_the_fetch(server, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 4096)
    seen = []

    def stop(done, total):
        seen.append((done, total))
        if done > total / 2:
            raise CheckpointError("Enough.")

    with pytest.raises(CheckpointError, match="Enough"):
        hub.fetch("owner/tiny", progress=stop)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*.incomplete"))
    assert hub.cached("owner/tiny") is None
    assert hub.fetch("owner/tiny") == hub.cached("owner/tiny")


def test_a_full_disk_is_told_before_fetching(server, monkeypatch, tmp_path):
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr("nemodiff.checkpoints.hub.shutil.disk_usage", lambda _: usage)
    refuse("owner/tiny", "of disk left")
    assert not list((tmp_path / "cache").rglob("*.incomplete"))
