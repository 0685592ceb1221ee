"""bench --cpu and --perplexity on tiny checkpoints: every figure is there, and bad settings get a sentence."""

import sys
from types import SimpleNamespace

import pytest
import torch

from nemodiff.bench import cpu, perplexity
from nemodiff.bench.cpu import Costs, report, run
from nemodiff.cli.main import main
from nemodiff.examples import Example
from nemodiff.trace.events import Event, Lane, Position
from tests.helpers.checkpoints import DTYPES, open_engine

PROMPT = Example("Ids", "1 2 3", True)


@pytest.fixture
def ids_for_text(monkeypatch):
    """Tiny checkpoints have no tokenizer: texts become ids by their bytes."""
    from nemodiff.checkpoints.tokenizer import Tokenizer

    monkeypatch.setattr(
        Tokenizer, "encode", lambda self, text, raw, *_, **__: [byte % 190 for byte in text.encode()][:40]
    )


def lane(mode: str, seconds: float, tokens: list[int]) -> Lane:
    events = [Event(mode, 0, "prefill", 1000.0, 0, 1, [Position(0, tokens[0], "seed")])]
    events.append(Event(mode, 2, "verify", 1000 * seconds, 0, 1, [], "length"))
    return Lane(mode, events, tokens=tokens, finish="length")


def test_the_report_adds_up():
    tokens = list(range(11))
    pair = (lane("ar", 3.0, tokens), lane("self-speculation", 2.0, tokens))  # 10 tokens in 2 s and in 1 s
    slow = Costs("float32", {1: 40.0, 8: 60.0, 16: 80.0, 32: 90.0}, 4.0, 0.01, 2.0, {PROMPT: pair}, prefill=300.0)
    parts = {1: {"products": 16.0, "attention": 1.0, "rest": 2.5, "Python": 0.5}}
    fast = Costs("int8", {1: 20.0, 8: 22.0, 16: 25.0, 32: 40.0}, 5.0, 0.02, None, {PROMPT: pair}, 900.0, parts)
    text = report([slow, fast], {"llama-cpp": cpu.Peer(8.0, 600.0)}, "somewhere", ["A note."])
    assert "| int8 | 20.0 | 22.0 | 25.0 | 40.0 | 1.10 | 1.25 | 900 | 5.0 | 2.0% |  | 5.0 | 10.0 | 2.00× |" in text
    assert "| 1 rows | 16.00 | 1.00 | 2.50 | 0.50 |" in text
    assert "| Ids | 11 | 5.0 | 10.0 | " in text and "| 2.00× | yes |" in text
    assert "2.50× transformers' fastest generate (2.0), 0.62× llama-cpp's AR" in text
    assert "makes 10.0: 2.00× our fastest AR, 1.25× llama-cpp's AR." in text and "A note." in text
    assert "A prompt of 512 tokens is read at 900 tokens/s (int8), 1.50× llama-cpp (600)." in text


def test_rates_of_several_prompts_are_of_all_their_tokens_over_all_their_seconds():
    short, long = list(range(11)), list(range(101))
    pairs = {
        PROMPT: (lane("ar", 3.0, short), lane("self-speculation", 1.5, short)),  # 10 tokens in 2 s and in 0.5 s
        Example("Long", "1 2 4", True): (lane("ar", 21.0, long), lane("self-speculation", 41.0, long)),  # 20 s, 40 s
    }
    costs = Costs("float32", {1: 40.0, 8: 60.0, 16: 80.0, 32: 90.0}, 4.0, 0.01, None, pairs)
    assert (costs.ar_rate, costs.speculation_rate) == (5.0, 110 / 40.5)
    assert "| 5.0 | 2.7 | 0.54× |" in report([costs], {}, "somewhere", [])


@pytest.mark.usefixtures("ids_for_text")
def test_a_tiny_checkpoint_is_measured(llama_folder):
    names = tuple(str(dtype).removeprefix("torch.") for dtype in DTYPES)
    text = run(str(llama_folder), dtypes=names, new_tokens=6, block_length=4, prompts=(PROMPT,))
    for name in names:
        assert f"| {name} | " in text
    assert "block 4, greedy, at most 6 new tokens" in text and "transformers' fastest generate" in text
    assert text.count("| yes |") == 1


def test_transformers_runs_over_the_very_weights(llama_folder, monkeypatch):
    """What its generate says is what our AR says."""
    from transformers import LlamaForCausalLM

    engine, said = open_engine(llama_folder, torch.float32), []
    original = LlamaForCausalLM.generate

    def generate(self, ids, **how):
        said.append(original(self, ids, **how)[0, ids.shape[1] :].tolist())
        return said[-1]

    monkeypatch.setattr(LlamaForCausalLM, "generate", generate)
    request = nemodiff_request()
    assert cpu._transformers_rate(engine.model, list(request.prompt_ids), 12) > 0
    assert said[-1] == engine.generate(request).lanes[0].tokens


def nemodiff_request():
    from nemodiff.request import Request

    return Request(prompt_ids=(5, 6, 7, 8), modes=("ar",), max_new_tokens=12, ignore_eos=True)


def test_other_shapes_are_not_given_to_transformers(nvidia_engine):
    assert cpu._transformers_rate(nvidia_engine.model, [1, 2], 4) is None


def test_a_peer_is_asked_for_its_own_timings(monkeypatch):
    """Once to warm up, then three times each: the answer, and a prompt of which nothing is kept from before."""
    asked = []

    class Server:
        def __init__(self, settings):
            assert settings.model.path.endswith("base.gguf") and settings.n_ctx >= cpu.PREFILL
            assert settings.cpuparams.n_threads == settings.cpuparams_batch.n_threads == torch.get_num_threads()

        def handle_completions(self, request):
            asked.append((len(request["prompt"]), request["n_predict"]))
            assert request["temperature"] == 0.0 and request["ignore_eos"] and not request["cache_prompt"]
            return {"timings": {"predicted_per_second": 10.0 * len(asked), "prompt_per_second": 100.0 - len(asked)}}

    def parts():
        return SimpleNamespace(model=SimpleNamespace(), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace())

    monkeypatch.setitem(sys.modules, "xllamacpp", SimpleNamespace(CommonParams=parts, Server=Server))
    monkeypatch.setattr(cpu, "fetch_base_gguf", lambda folder, report: folder / "base.gguf")
    assert cpu._peer("llama-cpp")([1, 2, 3], 20) == cpu.Peer(ar=40.0, prefill=95.0)
    assert asked == [(3, 3), *[(3, 20)] * 3, *[(cpu.PREFILL, 1)] * 3]


def test_a_peer_that_is_not_installed(llama_folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    assert main(["bench", "--cpu", "--peer", "llama-cpp", "--checkpoint", str(llama_folder)]) == 2
    assert "pip install xllamacpp, or leave --peer out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cpu", "--device", "cuda"], "leave --device cuda out"),
        (["--perplexity", "--device", "cuda"], "leave --device cuda out"),
        (["--cpu", "--max-new-tokens", "1"], "nothing to time in one token"),
        (["--cpu", "--dtype", "float8"], "Unknown dtype 'float8': choose float32 or bfloat16 or int8"),
    ],
)
def test_settings_that_cannot_be_used(llama_folder, capsys, arguments, said):
    assert main(["bench", "--checkpoint", str(llama_folder), *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("ids_for_text")
def test_perplexity_of_every_dtype_against_float32(llama_folder):
    names = tuple(str(dtype).removeprefix("torch.") for dtype in DTYPES)
    lines = perplexity.run(str(llama_folder), dtypes=names, texts=2).splitlines()
    rows = {line.split(" | ")[0].strip("| "): line for line in lines if line.startswith("| ")}
    assert set(names) < set(rows) and "neutral paragraphs (2)" in rows["dtype"]
    assert rows["float32"].count("(+0.00%)") == 3 and "(+0.00%)" not in rows[names[-1]].split(" | ")[1]
