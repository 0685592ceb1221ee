"""The command line on tiny random folders, as a user would call it."""

import json
import subprocess
import sys

import pytest

from nemodiff.cli.main import main
from nemodiff.trace.events import MODES, Trace

IDS = "5,6,7,8,9"


def test_generate_prints_one_json_object(nvidia_folder, capsys, tmp_path):
    trace_file = tmp_path / "trace.json"
    arguments = ["generate", "--checkpoint", str(nvidia_folder), "--prompt-ids", IDS, "--mode", "all", "--json"]
    arguments += ["--max-new-tokens", "20", "--block-length", "8", "--dtype", "float32", "--trace", str(trace_file)]
    assert main(arguments) == 0
    data = json.loads(capsys.readouterr().out)
    assert set(data) == {"checkpoint", "device", "dtype", "lanes"}
    assert list(data["lanes"]) == list(MODES)
    fields = {
        "tokens",
        "text",
        "forwards",
        "nfe",
        "tpf",
        "acceptance_lengths",
        "seconds",
        "tokens_per_second",
        "finish",
    }
    for lane in data["lanes"].values():
        assert set(lane) == fields
        assert lane["tpf"] == pytest.approx(len(lane["tokens"]) / lane["forwards"], abs=1e-4)
    assert data["lanes"]["self-speculation"]["tokens"] == data["lanes"]["ar"]["tokens"]
    assert data["dtype"] == "float32"
    trace = Trace.from_json(trace_file.read_text())
    assert [lane.tokens for lane in trace.lanes] == [lane["tokens"] for lane in data["lanes"].values()]


def test_generate_prints_lanes_for_people(llama_folder, capsys):
    assert main(["generate", "--checkpoint", str(llama_folder), "--prompt-ids", IDS, "--max-new-tokens", "12"]) == 0
    out = capsys.readouterr().out
    assert "── self-speculation:" in out
    assert "identical to AR" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no prompt"),
        (["--prompt", ""], "prompt is empty"),
        (["--prompt-ids", "1,x"], "whole numbers"),
        (["--prompt-ids", IDS, "--max-new-tokens", "0"], "--max-new-tokens"),
        (["--prompt-ids", IDS, "--max-new-tokens", "2048"], "context"),
        (["--prompt-ids", IDS, "--block-length", "999"], "--block-length"),
        (["--prompt-ids", IDS, "--threshold", "7"], "threshold"),
        (["--prompt-ids", IDS, "--max-thinking-tokens", "-1"], "--max-thinking-tokens"),
        (["--prompt-ids", IDS, "--max-thinking-tokens", "4"], "no </think> token"),
        (["--prompt-ids", IDS, "--sampler", "magic"], "sampler"),
        (["--prompt-ids", IDS, "--dtype", "float8"], "dtype"),
        (["--prompt-ids", IDS, "--device", "abacus"], "device"),
        (["--prompt-ids", IDS, "--image", "assets/images/bars.png"], "sees no pictures"),
        (["--prompt-ids", IDS, "--image", "cat.png"], "no picture at cat.png"),
        (["--prompt-ids", IDS, "--trace", "/nowhere/at/all.json"], "could not be written"),
        (["--prompt-ids", IDS, "--checkpoint", "no-such"], "Unknown checkpoint"),
        (["--prompt", "hello"], "no tokenizer"),
    ],
)
def test_bad_input_exits_with_2_and_one_sentence(llama_folder, capsys, arguments, says):
    if "--checkpoint" not in arguments:
        arguments = [*arguments, "--checkpoint", str(llama_folder)]
    assert main(["generate", "--max-new-tokens", "2", *arguments]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.startswith("nemodiff: ")
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_it_runs_as_a_module(llama_folder):
    command = [sys.executable, "-m", "nemodiff", "generate", "--checkpoint", str(llama_folder), "--prompt-ids", IDS]
    result = subprocess.run([*command, "--json", "--max-new-tokens", "5"], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout)["lanes"]["ar"]["tokens"]
    assert subprocess.run([*command, "--threshold", "7"], capture_output=True, text=True, check=False).returncode == 2


def test_checkpoints_lists_the_catalogue(capsys):
    assert main(["checkpoints"]) == 0
    out = capsys.readouterr().out
    assert "smollm2-135m-tri" in out
    assert "nvidia/Nemotron-Labs-Diffusion-8B-Base" in out
    assert "Fits here." in out
