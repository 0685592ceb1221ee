"""First light, rehearsed on a CPU at toy size: every part runs to its end and says what it found."""

from __future__ import annotations

import json

import pytest

from tools.first_light import __main__ as first_light
from tools.first_light import base, correctness
from tools.first_light.report import Findings, Report, table
from tools.first_light.speed import TARGETS


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    out = tmp_path_factory.mktemp("first-light")
    assert first_light.main(["--rehearse", "--out", str(out)]) == 0
    return out


def parts_of(out):
    return json.loads((out / "first_light.json").read_text())["parts"]


def test_every_part_is_in_the_results(rehearsed):
    data = json.loads((rehearsed / "first_light.json").read_text())
    assert data["rehearsal"] is True and list(data["parts"]) == list("abcde")
    assert not [name for name, found in data["parts"].items() if found["failed"] or not found["rows"]]
    text = (rehearsed / "first_light.md").read_text()
    assert all(found["title"] in text for found in data["parts"].values())


def test_forwards_of_fixed_shapes_have_the_tokens_of_eager_torch(rehearsed):
    rows = parts_of(rehearsed)["a"]["rows"]
    assert {row["checkpoint"] for row in rows} == {"nvidia", "vlm"} and {row["graphs"] for row in rows} == {True, False}
    assert all(row["same as the CPU"] for row in rows if row["dtype"] == "float32")
    assert all(row["AR = self-speculation"] for row in rows if row["exact"])


def test_the_check_passed(rehearsed):
    assert [row["the check on loading"] for row in parts_of(rehearsed)["b"]["rows"]] == ["passed", "passed"]


def test_every_target_stands_beside_what_was_measured(rehearsed):
    rows = parts_of(rehearsed)["c"]["rows"]
    assert [row["what"] for row in rows] == [target.name for target in TARGETS]
    assert [row["target on one H100"] for row in rows] == ["≥ 0.8", "≤ 1.2", "≤ 1.35", "≤ 0.05", "≥ 2.5"]
    assert all(row["measured"] > 0 for row in rows)


def test_the_trained_update_comes_back_in_pieces(rehearsed):
    (row,) = parts_of(rehearsed)["e"]["rows"]
    assert row["steps"] >= 1
    assert (rehearsed / "adapter.safetensors.00").stat().st_size > 0
    assert json.loads((rehearsed / "adapter_config.json").read_text())["mask_token_id"] == 16
    assert len(list(rehearsed.iterdir())) <= 8


def test_a_part_that_fails_does_not_end_the_rest(tmp_path, monkeypatch, capsys):
    def broken(found, where):
        found.notes.append("before")
        raise RuntimeError("no such card")

    monkeypatch.setattr(correctness, "tokens", broken)
    parts = first_light.PARTS | {"a": ("Broken", broken)}
    monkeypatch.setattr(first_light, "PARTS", parts)
    assert first_light.main(["a", "b", "--rehearse", "--out", str(tmp_path)]) == 1
    found = parts_of(tmp_path)
    assert "no such card" in found["a"]["failed"] and found["a"]["notes"] == ["before"]
    assert found["b"]["rows"] and not found["b"]["failed"]
    assert "failed: a" in capsys.readouterr().out


def test_what_is_refused(capsys):
    assert first_light.main(["x", "--rehearse"]) == 2
    assert "There is no part 'x': choose of a, b, c, d, e." in capsys.readouterr().err
    assert first_light.main([]) == 2
    assert "There is no GPU to run on" in capsys.readouterr().err


def test_results_are_written_after_every_part(tmp_path):
    report = Report(tmp_path, {"device": "made"})
    report.part("a", "First", lambda found: found.rows.append({"x": 1, "y | z": True}))
    assert "| 1 | yes |" in (tmp_path / "first_light.md").read_text()
    with pytest.raises(KeyboardInterrupt):
        report.part("b", "Second", interrupted)
    assert list(parts_of(tmp_path)) == ["a"]


def interrupted(found: Findings) -> None:
    raise KeyboardInterrupt


def test_tables():
    assert table([]) == ""
    assert table([{"a": 0.12345, "b": "x|y"}, {"a": 1234.5}]) == (
        "| a | b |\n| --- | --- |\n| 0.123 | x\\|y |\n| 1,234 |  |"
    )


def test_the_base_weights_travel_in_parts(tmp_path, monkeypatch):
    content = bytes(range(256)) * 5
    source = tmp_path / "whole.gguf"
    source.write_bytes(content)
    monkeypatch.setattr(base, "fetch_base_gguf", lambda folder: source)
    monkeypatch.setattr(base, "PART", 500)
    monkeypatch.setattr(base, "cache_folder", lambda: tmp_path / "cache")
    made = []
    monkeypatch.setattr(base, "convert", lambda file, folder: made.append(file.read_bytes()))
    parts = base.pack(tmp_path / "carried")
    assert [part.stat().st_size for part in parts] == [500, 500, 280]
    for part in parts:  # one call each
        one = tmp_path / part.name
        one.mkdir()
        (one / part.name).write_bytes(part.read_bytes())
        (one / "parts").write_text((tmp_path / "carried" / "parts").read_text())
        said = base.keep(one)
    assert said == "The base weights are here." and made == [content]
