"""Costs of a shape: every figure is there for a tiny one, and a large one is refused where it does not fit."""

import pytest

from nemodiff.__main__ import main
from nemodiff.bench_shape import SHAPES, Costs, report
from nemodiff.model.transformer import Transformer


def test_a_tiny_shape_is_measured(capsys):
    arguments = ["bench", "--shape", "tiny", "--max-new-tokens", "8", "--block-length", "4", "--device", "cpu"]
    assert main([*arguments, "--dtype", "float32"]) == 0
    out = capsys.readouterr().out
    for part in ("tiny shape", "4 tokens, bidirectional with LoRA", "tracing", "AR ", "generate", "copy bandwidth"):
        assert part in out
    assert "published" not in out


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
        token=10.0,
        verify=12.0,
        draft=14.0,
        denoise=13.0,
        tracing=0.5,
        ar=95.0,
        transformers=None,
        copy_bandwidth=4e12,
        weights=16 * 10**9,
    )
    assert costs.bandwidth_share == pytest.approx(0.4)
    text = report("8B", costs, "somewhere")
    assert "self-speculation 5.99 → 460.8 tokens/s" in text  # 5.99 tokens a forward of 13 ms
    assert "takes 40% of its time" in text
