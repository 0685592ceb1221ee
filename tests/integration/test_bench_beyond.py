"""bench --beyond: every table from a tiny engine, figures to the letter where they are no times."""

import re
import shutil
from statistics import fmean

import pytest
import torch

from nemodiff.bench import beyond
from nemodiff.bench.beyond import Drafts, costs, drafts_report, light, measure_drafts, ranking_table, run
from nemodiff.checkpoints.tokenizer import Tokenizer
from nemodiff.cli.main import main
from nemodiff.evaluate.agreement import Totals
from nemodiff.examples import Example
from nemodiff.request import Request
from nemodiff.samplers.trained import SamplerConfig, TrainedSampler, principal_components, save_sampler

PROMPTS = (Example("Ids", "1 2 3", True), Example("Words", "sun", False))


@pytest.fixture(autouse=True)
def ids_for_text(monkeypatch):
    """Tiny checkpoints have no tokenizer: texts become ids by their bytes."""
    monkeypatch.setattr(
        Tokenizer, "encode", lambda self, text, raw, *_, **__: [byte % 190 for byte in text.encode()][:40]
    )


def cells(text: str, start: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(start))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_means_add_up():
    ids, words = PROMPTS
    ways = (("linear", 8, 2.0), ("quadratic", 2, 3.0), ("quadratic", 4, 4.0))
    ar = Totals(100, 99, 100, 1.0)
    measured = [
        Drafts(
            example,
            draft,
            length,
            Totals(int(100 * x), 100, 0, 2.0, (int(2 * x) + more,)),
            ar,
            draft == "linear" or not more,
        )
        for more, example in ((0, ids), (1, ids), (0, words))
        for draft, length, x in ways
    ]
    text = drafts_report(measured, 24)
    assert "at most 24 new tokens" in text
    assert "| structured | linear, 8 | 4.50 | 2.00 | 1.00× | 1.00× | 1.00× | 100% |" in text
    assert "| structured | quadratic, 4 | 8.50 | 4.00 | 2.00× | 2.00× | 2.00× | 50% |" in text
    assert "| open-ended | quadratic, 2 | 6.00 | 3.00 | 1.50× | 1.50× | 1.50× | 100% |" in text
    assert "| prompt, quadratic drafts, block 4 |" in text  # the fastest
    assert text.count("| Ids |") == 2 and "| Words | 8.00 | 4.00 | 2.00× | 2.00× | 2.00× | 100% |" in text


def test_drafts_are_those_of_the_engine(llama_engine):
    measured = measure_drafts(llama_engine, PROMPTS, 4, (3,), 12)
    assert [(one.draft, one.block_length) for one in measured] == [("linear", 4), ("quadratic", 3)] * 2
    assert [one.example for one in measured] == [PROMPTS[0]] * 2 + [PROMPTS[1]] * 2
    for one in measured:
        request = Request(
            prompt=one.example.prompt, modes=("self-speculation",), draft=one.draft, block_length=one.block_length,
            max_new_tokens=12,
        )  # fmt: skip
        lane = llama_engine.generate(request).lanes[0]
        assert (one.own.acceptance, one.own.tpf) == (fmean(lane.acceptance_lengths), lane.tpf)
        assert one.identical and one.own.seconds > 0 and one.ar.seconds > 0


def test_forwards_have_the_rows_that_decoding_runs(llama_engine):
    text = costs(llama_engine, 4, (2, 3))
    rows = [re.split(r" *\| *", line)[2] for line in text.splitlines()[2:]]
    request = Request(
        prompt="1 2 3", modes=("self-speculation",), draft="quadratic", block_length=3, max_new_tokens=12,
        ignore_eos=True,
    )  # fmt: skip
    last = llama_engine.generate(request).lanes[0].events[-1]
    assert rows[:3] == ["1", "4", "4"] and rows[4] == str(last.rows)
    assert cells(text, "| one token (AR)")[-1] == "1.00"


def test_ranking_is_of_both_scores():
    right = torch.tensor([True, True, False, False])
    table = ranking_table({"a": torch.tensor([0.9, 0.8, 0.1, 0.2]), "b": torch.tensor([0.5, 0.5, 0.5, 0.5])}, right)
    assert "4 guesses on the way, 50% of them final" in table
    assert "| a | 1.0000 | 0.1500 | 100.0% | 100.0% | 100.0% | 100.0% |" in table
    assert "| b | 0.5000 | 0.0000 | 0.0% | 0.0% | 0.0% | 0.0% |" in table


def test_the_light_is_that_of_its_own_command(llama_engine, capsys):
    text = light(llama_engine, PROMPTS, (2, 4), 12)
    lines = text.splitlines()
    assert "2 prompts, at most 12 new tokens; sampler: confidence >= 0.9" in lines[0]
    assert [line.split(" | ")[0] for line in lines[-2:]] == ["| 2", "| 4"]
    serial, sampler, ceiling = map(float, cells(text, "| 4 |")[1:4])
    assert 0 < serial <= sampler and serial <= ceiling
    assert "speed of light: block 4" in capsys.readouterr().err


@pytest.fixture
def with_sampler(llama_folder, llama_engine, tmp_path):
    folder = tmp_path / "with-sampler"
    shutil.copytree(llama_folder, folder)
    torch.manual_seed(0)
    embedding = llama_engine.model.embed.weight
    sampler = TrainedSampler(SamplerConfig(1, 16, 2, *embedding.shape, components=5))
    sampler.mean, sampler.projection = principal_components(embedding, 5)
    save_sampler(sampler, folder / "sampler", {"threshold": 0.7})
    return folder


def test_one_run_prints_every_table(with_sampler, llama_folder, monkeypatch, capsys):
    monkeypatch.setattr(beyond, "EXAMPLES", PROMPTS)
    monkeypatch.setattr(beyond, "LENGTHS", (2, 3))
    monkeypatch.setattr(beyond, "LIGHT_LENGTHS", (2, 4))
    monkeypatch.setattr(beyond, "ORDER_LENGTHS", (4,))
    arguments = ["--max-new-tokens", "8", "--prompts", "2", "--block-length", "4", "--dtype", "float32"]
    assert main(["bench", "--beyond", "--checkpoint", str(with_sampler), *arguments]) == 0
    text = capsys.readouterr().out
    assert cells(text, "| structured | linear, 4")[-1] == cells(text, "| open-ended | quadratic, 3")[-1] == "100%"
    for part in (
        "| trained: TPF |",
        "| entropy | 0.8 |",
        "| trained | 0.9 |",
        "The trained sampler has",
        "ceiling TPF",
        "| structured | tree, 8 |",
        "| open-ended | tree, auto |",
        "Candidates whose parent was accepted",
        "| structured | 4 | trained | leftmost | 0.6 |",
    ):
        assert part in text
    assert len(cells(text, "| trained | 0.")) in (6, 7)

    settings = {"max_new_tokens": 8, "prompts": 1, "block_length": 4, "device": "cpu", "dtype": "float32"}
    bare = "\n".join(run(str(llama_folder), **settings))
    assert "| confidence | 0.9 |" in bare and "trained" not in bare


@pytest.mark.parametrize("arguments", [["--prompts", "0"], ["--max-new-tokens", "0"], ["--block-length", "99"]])
def test_settings_that_cannot_run(llama_folder, capsys, arguments):
    assert main(["bench", "--beyond", "--checkpoint", str(llama_folder), *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
