"""Files that training reads: what is none of its own, or only half of one, is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nemodiff.errors import NemodiffError
from nemodiff.training.distill import read_answers
from nemodiff.training.draft_head import DraftStates
from nemodiff.training.progress import read_state, save_state
from nemodiff.training.stacked import kept
from nemodiff.training.trajectories import States
from tests.helpers.training import tiny_lora, tiny_model

RECORD = '{"kind": "explain", "prompt": "Why?", "answer_ids": [4, 2], "kept": true}'


@pytest.fixture(params=["text", "nothing", "half", "another's"])
def wrong(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file that no training wrote whole."""
    file = tmp_path / "state.pt"
    if request.param == "text":
        file.write_text("# A document\n\nThat somebody wrote - not a pickle.\n")
    elif request.param == "nothing":
        file.touch()
    else:
        torch.save([{"answer": torch.ones(900)}], file)
        file.write_bytes(file.read_bytes()[: -200 if request.param == "half" else None])
    return file


def test_a_state_that_is_none(wrong: Path) -> None:
    with pytest.raises(NemodiffError, match=r"state\.pt is no saved state, or only half of one: name another file"):
        read_state(wrong)


@pytest.mark.parametrize("kind", [States, DraftStates])
def test_collected_states_that_are_none(wrong: Path, kind: type) -> None:
    before = wrong.read_bytes()
    with pytest.raises(NemodiffError, match=r"state\.pt is no file that --states wrote for this step"):
        kept(wrong, kind, list)
    assert wrong.read_bytes() == before


def test_a_state_of_another_rank_is_named(tmp_path: Path) -> None:
    save_state(tmp_path, {"settings": {"rank": 64}, "step": 3})
    assert read_state(tmp_path / "state.pt", rank=64)["step"] == 3
    with pytest.raises(NemodiffError, match="was made with rank 64, not 8: go on with that, or name another run"):
        read_state(tmp_path / "state.pt", rank=8)


def test_answers_of_distill_and_what_is_none(tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_text(f"{RECORD}\n{RECORD[:30]}")  # the last line is still being written
    assert [record["answer_ids"] for record in read_answers(file)] == [[4, 2]]
    for text, says in (
        ("# A document\n\nof text\n", "holds no record"),
        (f"{RECORD}\n[3]\n", "line 2, is no record"),
        (RECORD.replace("kept", "kind"), "line 1, is no record"),
        (RECORD.replace("[4, 2]", "[]"), "line 1, is no record"),
    ):
        file.write_text(text)
        with pytest.raises(NemodiffError, match=says):
            read_answers(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(NemodiffError, match="cannot be read as text"):
        read_answers(file)
    with pytest.raises(NemodiffError, match="cannot be read as text"):
        read_answers(tmp_path)
    assert read_answers(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("content", [None, b"", b"text", b"\x10\x00\x00\x00\x00\x00\x00\x00{}              "])
def test_an_update_to_start_from_that_is_none(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "adapter.safetensors").write_bytes(content)
    lora = tiny_lora(tiny_model())
    with pytest.raises(NemodiffError, match="holds no exported update of this model and of this rank at most"):
        lora.load(tmp_path)
