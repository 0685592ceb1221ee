"""Costs of a shape: every figure is there for a tiny one, and a large one is refused where it does not fit."""

from dataclasses import replace

import pytest
import torch

from nemodiff.bench.shape import SHAPES, Costs, _transformers_rate, random_model, report
from nemodiff.cli.main import main
from nemodiff.model.config import RopeConfig
from nemodiff.model.cpu import int8_obstacle
from nemodiff.model.transformer import Transformer


def test_a_tiny_shape_is_measured(capsys):
    arguments = ["bench", "--shape", "tiny", "--max-new-tokens", "8", "--block-length", "4", "--device", "cpu"]
    assert main([*arguments, "--dtype", "float32", "--context", "40"]) == 0
    out = capsys.readouterr().out
    assert "fixed-shape products · after 40 tokens" in out
    for part in ("tiny shape", "4 tokens, bidirectional with LoRA", "tracing", "AR ", "generate", "a sum reads"):
        assert part in out
    assert "published" not in out


@pytest.mark.skipif(bool(int8_obstacle(torch.device("cpu"))), reason="no int8 here")
def test_int8_is_what_a_cpu_measures_by_default(capsys):
    arguments = ["bench", "--shape", "tiny", "--max-new-tokens", "4", "--block-length", "4", "--context", "20"]
    assert main([*arguments, "--device", "cpu"]) == 0
    assert "· int8 ·" in capsys.readouterr().out
    assert main([*arguments, "--device", "cpu", "--graphs"]) == 2
    assert "CUDA graphs need a GPU" in capsys.readouterr().err


def test_a_shape_that_does_not_fit(capsys, monkeypatch):
    monkeypatch.setattr("nemodiff.model.memory.free_memory", lambda device: 10**9)
    assert main(["bench", "--shape", "14B", "--device", "cpu", "--dtype", "bfloat16"]) == 2
    assert "The 14B shape does not fit: it needs about 29.7 GB" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "billions"), [("3B", 3.83), ("8B", 8.49), ("14B", 13.5)])
def test_shapes_have_the_published_number_of_parameters(name, billions):
    parameters = Transformer(SHAPES[name].config(), "meta").parameters()
    assert sum(p.numel() for p in parameters) / 1e9 == pytest.approx(billions, abs=0.02)


def test_the_report_adds_up():
    costs = Costs(
        context=512,
        block=32,
        attention="SDPA",
        token=10.0,
        verify=12.0,
        draft=14.0,
        denoise=13.0,
        tracing=0.5,
        ar=95.0,
        transformers=47.5,
        copies=2e12,
        reads=4e12,
        weights=16 * 10**9,
    )
    assert costs.limit == 250  # 4e12 bytes/s over 16e9 bytes
    text = report("8B", costs, "somewhere")
    assert "self-speculation 5.99 → 460.77 tokens/s (4.85× AR)" in text  # 5.99 tokens per forward of 13 ms
    assert "AR reaches 38%" in text and "47.50 tokens/s, both without the prefill: 2.00×" in text
    assert "| 32 tokens, bidirectional (denoise) | 13.00 | 1.30 |" in text


def test_transformers_runs_over_the_very_weights(monkeypatch):
    """Not a copy of them, and they mean the same to it: its next token is ours."""
    import transformers

    model = random_model(SHAPES["tiny"].config(), torch.device("cpu"), torch.float32)
    model.embed.weight.data.normal_()
    seen = []
    generate = transformers.GenerationMixin.generate

    def watched(self, ids, **how):
        out = generate(self, ids, **how)
        seen.append((self, int(out[0, ids.shape[1]])))
        return out

    monkeypatch.setattr(transformers.GenerationMixin, "generate", watched)
    prompt = torch.arange(20)
    assert _transformers_rate(model, prompt, 4) > 0
    reference, token = seen[-1]
    assert reference.lm_head.weight.data_ptr() == model.head.weight.data_ptr()
    model.config = replace(model.config, rope=RopeConfig(theta=reference.config.rope_parameters["rope_theta"]))
    cache = model.new_cache(20)
    assert token == int(model(prompt, cache, causal=True, rows=slice(-1, None)).argmax())


@pytest.mark.parametrize("arguments", [["--context", "0"], ["--max-new-tokens", "1"], ["--block-length", "999"]])
def test_settings_that_cannot_be_timed(capsys, arguments):
    assert main(["bench", "--shape", "tiny", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
