"""What the command line cannot do is one sentence, before anything runs; no combination of options is a traceback."""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nemodiff.bench
import nemodiff.cli
import nemodiff.training
from nemodiff import command
from nemodiff.cli import bench
from nemodiff.cli import train as training
from nemodiff.cli.main import main
from nemodiff.command import JsonLines
from nemodiff.engine import devices, loading
from nemodiff.engine.interface import Defaults
from nemodiff.errors import CheckpointError, RequestError

NOBODY = "~no_such_user_here/x"


class Ran(Exception):
    """A run began that should have been refused before."""


def _loading() -> list[str]:
    """Every module that loads a checkpoint for a command."""
    folders = (nemodiff.bench, nemodiff.cli, nemodiff.training)
    names = [found.name for folder in folders for found in pkgutil.iter_modules(folder.__path__, f"{folder.__name__}.")]
    return [name for name in names if getattr(importlib.import_module(name), "load", None) is loading.load]


LOADING = _loading()


@pytest.fixture
def no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any load of a checkpoint, or start of a run, is a failure."""

    def begin(*_: Any, **__: Any) -> None:
        raise Ran

    for module in LOADING:
        monkeypatch.setattr(f"{module}.load", begin)
    monkeypatch.setattr("nemodiff.bench.shape.run", begin)
    monkeypatch.setattr("nemodiff.cli.train.base_weights", begin)


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one sentence that a command ends with, nothing on stdout."""
    assert main(arguments) == 2, arguments
    captured = capsys.readouterr()
    assert captured.err.startswith("nemodiff: ") and captured.err.count("\n") == 1, captured.err
    assert captured.err.rstrip().endswith(".") and not captured.out
    return captured.err.removeprefix("nemodiff: ").rstrip()


VALUES = {
    "threshold": "0.9",
    "draft": "quadratic",
    "peer": "llama-cpp",
    "results": "results.jsonl",
    "checkpoint": "somewhere",
    "dtype": "float32",
    "device": "cpu",
    "graphs": None,
    "texts": None,
}
KINDS = {kind.name: kind for kind in bench.KINDS}
UNUSED = [
    (kind.name, option)
    for kind in bench.KINDS
    for option in sorted({name for other in bench.KINDS for name in other.uses} - set(kind.uses))
]


def asked(kind: bench.Kind) -> list[str]:
    return [
        "bench",
        *([] if kind.option is None else [command.flag(kind.option)]),
        *["tiny"] * (kind.option == "shape"),
    ]


def given_option(name: str) -> list[str]:
    value = VALUES.get(name, "3")
    return [command.flag(name)] if value is None else [command.flag(name), value]


@pytest.mark.usefixtures("no_run")
@pytest.mark.parametrize(("kind", "option"), UNUSED)
def test_a_bench_refuses_what_it_does_not_use(kind: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, [*asked(KINDS[kind]), *given_option(option)])
    assert said.startswith(f"{kind} does not use {command.flag(option)}: it is for bench")


@pytest.mark.usefixtures("no_run")
@pytest.mark.parametrize(
    "line", [["bench", "cpu", "--results", "x"], ["bench", "shape"], ["bench", "vision", "--peer", "llama-cpp"]]
)
def test_a_bench_by_its_name_knows_its_own_options_alone(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(line)
    assert left.value.code == 2 and "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("named", "flagged"),
    [
        (["cpu", "--dtype", "int8"], ["--cpu", "--dtype", "int8"]),
        (["--dtype", "int8", "cpu"], ["--cpu", "--dtype", "int8"]),
        (["shape", "tiny", "--context", "9"], ["--shape", "tiny", "--context", "9"]),
        (["quality"], ["--quality"]),
    ],
)
def test_a_bench_by_its_name_is_the_bench_by_its_flag(named: list[str], flagged: list[str]) -> None:
    parser = argparse.ArgumentParser()
    bench.add_parser(parser.add_subparsers())
    both = [vars(parser.parse_args(["bench", *line])) for line in (named, flagged)]
    assert both[0] | {"name": None} == both[1]


@pytest.mark.usefixtures("no_run")
def test_two_benches_at_once_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, ["bench", "--cpu", "--perplexity"]) == (
        "bench --cpu and bench --perplexity are benches of their own: choose one."
    )


def test_every_option_of_bench_is_used_by_a_bench() -> None:
    """So that a new one cannot be ignored by all of them."""
    parser = argparse.ArgumentParser()
    bench.add_parser(parser.add_subparsers())
    args = vars(parser.parse_args(["bench"]))
    benches = {kind.option for kind in bench.KINDS if kind.option}
    assert set(args) - benches - {"func", "name"} == {name for kind in bench.KINDS for name in kind.uses}
    assert all(args[name] is None for kind in bench.KINDS for name in kind.uses)


@pytest.mark.usefixtures("no_run")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["generate", "--prompt", "x", "--prompt-ids", "1"], "--prompt-ids does not use --prompt:"),
        (["generate", "--prompt-ids", "1", "--raw"], "--prompt-ids does not use --raw:"),
        (["generate", "--prompt", "x", "--steps", "3"], "--sampler confidence does not use --steps:"),
        (
            ["generate", "--prompt", "x", "--sampler", "fixed", "--threshold", "0.5"],
            "--sampler fixed does not use --threshold:",
        ),
        (
            ["generate", "--prompt", "x", "--sampler", "trained", "--entropy-bound", "1"],
            "--sampler trained does not use --entropy-bound:",
        ),
        (["speed-of-light", "--prompt", "x", "--prompts", "3"], "--prompt does not use --prompts:"),
        (["train", "joint", "--device", "cuda", "--workers", "2"], "--device cuda does not use --workers:"),
        (["train", "vision", "--resume", "--start", "."], "--resume does not use --start:"),
    ],
)
def test_other_commands_refuse_options_that_others_rule_out(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in refused(capsys, arguments)


@pytest.mark.usefixtures("no_run")
@pytest.mark.parametrize("path", ["/proc/none/x", "{folder}", "{file}/x", "a\0b", "x" * 300, NOBODY])
@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "--prompt", "x", "--trace"],
        ["bench", "--quality", "--results"],
        ["bench", "--vision", "--results"],
        ["train", "sampler", "--states"],
        ["train", "distill", "--out"],
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_run(
    arguments: list[str], path: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    path = path.format(folder=tmp_path / "folder", file=tmp_path / "file")
    if arguments[1] in ("sampler", "distill") and path in (NOBODY, str(tmp_path / "folder")):
        pytest.skip("a folder of that name can be made, and a folder of trajectories is another test's")
    assert "could not be written to" in refused(capsys, [*arguments, path])
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.usefixtures("no_run")
@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "sampler", "--out"],
        ["train", "joint", "--out"],
        ["train", "vision", "--out"],
        ["train", "vision", "--to"],
        ["train", "drafter", "--out"],
        ["train", "drafter", "--to"],
    ],
)
def test_a_folder_of_outputs_that_cannot_be_made_is_refused_before_the_run(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    for path in (str(tmp_path / "file"), str(tmp_path / "file" / "x"), "a\0b", "/proc/none"):
        assert "could not be written to" in refused(capsys, [*arguments, path])


@pytest.mark.usefixtures("no_run")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "joint", "--chat", "none.jsonl"], "There is no chat made by `distill` at none.jsonl."),
        (["train", "joint", "--start", "none"], "There is no exported adapter at none."),
        (["train", "drafter", "--chat", "none.jsonl"], "There is no chat made by `distill` at none.jsonl."),
        (["train", "joint", "--base", "a\0b"], "There is no base checkpoint at"),
        (["train", "distill", "--base", NOBODY], f"There is no base checkpoint at {NOBODY}."),
        (["train", "vision", "--resume"], "There is no saved state at runs/vision/state.pt."),
        (["train", "export", "--run", "none"], "There is no saved state at none/state.pt."),
    ],
)
def test_an_input_that_is_not_there_is_named(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in refused(capsys, arguments)


@pytest.mark.parametrize("name", [NOBODY, "~", "", "/", "/dev/null", "a\0b", "x" * 5000, "a/../b", "\udcff", "//", "."])
@pytest.mark.parametrize(
    "arguments", [["generate", "--prompt", "x"], ["bench"], ["bench", "--cpu"], ["sweep"], ["speed-of-light"]]
)
def test_an_odd_name_of_a_checkpoint_is_a_sentence(
    arguments: list[str], name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main([*arguments, "--checkpoint", name, "--dtype", "float32"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("nemodiff: ") or "\nnemodiff: " in said
    assert "Traceback" not in said and len(said) < 1000


def test_odd_names_are_no_folders_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    from ui.server.launch import name_of

    for name in (NOBODY, "a\0b", "x" * 5000):
        reasons = loading.obstacles(more=[name])
        assert reasons[name] is None  # what is not here yet is told of when it is fetched
    assert name_of(NOBODY) == "x"  # strangers see the last part alone


@pytest.mark.parametrize("kind", ["--cpu", "--perplexity"])
def test_int8_where_it_cannot_run_is_a_sentence_before_the_run(
    kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, no_run: None
) -> None:
    monkeypatch.setattr("nemodiff.engine.devices.int8_obstacle", lambda device: "this CPU has no VNNI")
    said = refused(capsys, ["bench", kind, "--dtype", "int8"])
    assert said == "This CPU has no VNNI: choose float32 or bfloat16."
    assert "Unknown dtype" in refused(capsys, ["bench", kind, "--dtype", "int9"])


def test_a_trace_that_cannot_be_written_at_the_end_loses_nothing_else(
    llama_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    arguments = ["generate", "--prompt-ids", "1,2", "--max-new-tokens", "3", "--dtype", "float32", "--json"]
    assert main([*arguments, "--checkpoint", str(llama_folder), "--trace", "/dev/full"]) == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out)["lanes"]["ar"]["tokens"]
    assert "The trace could not be written to /dev/full: No space left on device." in captured.err


def test_results_that_cannot_be_written_any_more_do_not_end_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    with JsonLines(tmp_path / "x.jsonl") as file:
        file.write([{"a": 1}])
        file._file = Full()
        file.write([{"a": 2}])
        file.write([{"a": 3}])
    said = capsys.readouterr().err
    assert said.count("x.jsonl ends here: No space left on device. The run goes on.") == 1
    assert (tmp_path / "x.jsonl").read_text() == '{"a": 1}\n'


def test_what_looks_before_a_run_disturbs_nothing(tmp_path: Path) -> None:
    kept, new, pipe = tmp_path / "kept", tmp_path / "new", tmp_path / "pipe"
    kept.write_text("mine")
    os.mkfifo(pipe)  # to open it would wait for a reader
    for path in (kept, new, pipe, Path("/dev/null")):
        command.check_file(path, "trace")
    assert kept.read_text() == "mine" and not new.exists()


def test_a_reader_that_has_had_enough_is_no_error() -> None:
    def func(_: argparse.Namespace) -> int:
        raise BrokenPipeError

    read, write = os.pipe()
    with os.fdopen(write, "w") as out, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        assert command.run(argparse.Namespace(func=func)) == 141
    os.close(read)


def test_a_file_that_goes_away_is_a_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert command.run(argparse.Namespace(func=lambda _: gone.read_text())) == 2
    assert capsys.readouterr().err == f"nemodiff: {gone} cannot be used: No such file or directory.\n"


class Engine:
    """Enough of an engine for every command to begin with."""

    checkpoint, device, dtype, exact, sees, sampler = "made", "CPU", "float32", True, True, None
    defaults = Defaults()
    model = SimpleNamespace(config=SimpleNamespace(vocab_size=9))

    def __getattr__(self, name: str) -> Any:
        raise RequestError(f"The made engine does nothing ({name}).")


def _parsers() -> Iterator[tuple[list[str], list[argparse.Action]]]:
    """(command, its options) of the whole command line."""
    found: list[argparse.ArgumentParser] = []
    with pytest.MonkeyPatch.context() as patch, pytest.raises(AttributeError):
        patch.setattr(argparse.ArgumentParser, "parse_args", lambda self, argv: found.append(self))
        main([])

    def walk(parser: argparse.ArgumentParser, words: list[str]) -> Iterator[tuple[list[str], list[argparse.Action]]]:
        nested = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
        for action in nested:
            for word, child in action.choices.items():
                yield from walk(child, [*words, word])
        if not nested or words == ["bench"]:
            yield words, [one for one in parser._actions if one.option_strings and one.dest != "help"]

    yield from walk(found[0], [])


COMMANDS = [(words, options) for words, options in _parsers() if words != ["checkpoints"]]
ODD = ["", "0", "1", "-1", "3", "0.5", "nan", "inf", "1e400", "1,2", ",", "9" * 30, "\udcff", "a\0b", "x" * 300, NOBODY]
ODD += [
    "ar",
    "all",
    "cpu",
    "cuda",
    "cuda:99",
    "int8",
    "float32",
    "trained",
    "fixed",
    "quadratic",
    ".",
    "/dev/null",
    "mine.txt",
    "8B",
]


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    words, options = draw(st.sampled_from(COMMANDS))
    line = list(words)
    for option in draw(st.lists(st.sampled_from(options), max_size=6, unique_by=lambda one: one.dest)):
        line.append(draw(st.sampled_from(option.option_strings)))
        if option.nargs == 0:
            continue
        count = option.nargs if isinstance(option.nargs, int) else 1
        if isinstance(option, argparse.BooleanOptionalAction):
            continue
        choices = list(option.choices or ODD)
        line += [str(draw(st.sampled_from(choices if draw(st.booleans()) else ODD))) for _ in range(count)]
    return line


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Commands that reach an engine get one that does nothing, in a folder with one file, which is none of ours."""

    def load(name: str = "", **how: Any) -> Engine:
        target = devices.pick_device(how.get("device"))
        devices.pick_dtype(how.get("dtype"), target)
        devices.pick_graphs(how.get("graphs", "auto"), target)
        if name not in ("made", "") and not name.startswith("smollm2"):
            raise CheckpointError("Unknown checkpoint.")
        return Engine()

    def nothing(*_: Any, **__: Any) -> Any:
        raise RequestError("Nothing is run here.")

    for module in LOADING:
        monkeypatch.setattr(f"{module}.load", load)
    monkeypatch.setattr("nemodiff.bench.shape.measure", nothing)
    # Its workers are processes of their own, which would load the real thing.
    monkeypatch.setattr("nemodiff.bench.quality.ProcessPoolExecutor", nothing)
    for module, name in (
        ("distill", "distill"),
        ("joint", "train"),
        ("joint", "export"),
        ("drafter", "Run"),
        ("sampler_run", "run"),
        ("vision", "Run"),
    ):
        monkeypatch.setattr(f"nemodiff.training.{module}.{name}", nothing)
    monkeypatch.setattr("nemodiff.cli.train.base_weights", nothing)
    (tmp_path / "mine.txt").write_text("- mine\n")
    monkeypatch.chdir(tmp_path)
    yield


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(line=command_lines())
def test_no_combination_of_options_is_a_traceback(line: list[str], made: None) -> None:
    try:
        ended = main(line)
    except SystemExit as left:  # argparse's own refusals
        ended = left.code
    assert ended in (0, 2), line


def test_the_training_steps_by_themselves_end_in_a_sentence_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert training.main(["export", "--run", "none"]) == 2
    assert capsys.readouterr().err == "nemodiff: There is no saved state at none/state.pt.\n"
