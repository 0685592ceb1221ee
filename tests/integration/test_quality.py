"""The quality bench: the same tasks every time, figures that add up, tables from a real tiny engine."""

import dataclasses

import pytest

from nemodiff.bench import quality
from nemodiff.evaluate.perplexity import perplexity
from nemodiff.evaluate.quality import BLOCKS, THRESHOLDS, Result, Task, figures, measure, tasks
from nemodiff.tasks.structured.families import HELD_OUT_FAMILIES, HELD_OUT_FAR_FAMILIES, TRAINED_FAMILIES, is_held_out
from tests.helpers.engines import WithText


def result(name="a", mode="ar", **values) -> Result:
    common = {
        "group": "instances",
        "block_length": None,
        "threshold": None,
        "tokens": 10,
        "forwards": 9,
        "seconds": 1.0,
        "exact": True,
        "agreement": 1.0,
        "repeated": 0.0,
    }
    return Result(name=name, mode=mode, **common | values)


def test_tasks_are_held_out_and_the_same_every_time():
    chosen = tasks()
    assert chosen == tasks()
    names = {group: {task.name for task in chosen if task.group == group} for group in ("instances", "families")}
    assert names["instances"] == set(TRAINED_FAMILIES)
    assert names["families"] == set(HELD_OUT_FAMILIES)
    assert {task.name for task in chosen if task.group == "far families"} == set(HELD_OUT_FAR_FAMILIES)
    assert all(is_held_out(task.prompt) for task in chosen if task.answer is not None)
    assert len({(task.group, task.prompt) for task in chosen}) > 0.95 * len(chosen)


def test_figures_are_over_all_tokens_and_cycles():
    ar = [result("a", tokens=10, forwards=9, seconds=2.0), result("b", tokens=30, forwards=29, seconds=6.0)]
    fast = [
        result("a", "self-speculation", tokens=10, forwards=4, seconds=0.5, lengths=[4, 5]),
        result("b", "self-speculation", tokens=30, forwards=16, seconds=1.5, lengths=[3], exact=False, agreement=0.5),
    ]
    one = figures(fast, ar)
    assert (one.tpf, one.acceptance, one.exact, one.identical, one.agreement) == (2.0, 4.0, 0.5, 0.5, 0.75)
    assert one.speed_up == pytest.approx(4.0)
    # Only the tasks that both have are compared.
    assert figures(fast[:1], ar).speed_up == pytest.approx(4.0)
    assert figures([result(exact=None)], ar).exact is None


def test_a_full_task_runs_every_setting_once(llama_engine):
    engine = WithText(llama_engine)
    results = list(
        measure(engine, Task("instances", "x", "hello", "no such answer", True), block_length=4, threshold=0.9)
    )
    assert [one.mode for one in results[:3]] == ["ar", "diffusion", "self-speculation"]
    speculation = [one.block_length for one in results if one.mode == "self-speculation"]
    diffusion = [one.threshold for one in results if one.mode == "diffusion"]
    assert sorted(speculation) == sorted(BLOCKS)
    assert sorted(diffusion) == sorted(THRESHOLDS)
    assert all(one.agreement == 1.0 for one in results if one.mode != "diffusion")
    assert all(one.exact is False for one in results)
    few = list(measure(engine, Task("open", "y", "hello", None, False), block_length=4, threshold=0.9))
    assert [one.exact for one in few] == [None] * 3


def test_tables_hold_every_group_and_setting(llama_engine):
    engine = WithText(llama_engine)
    results = []
    for task in (
        Task("instances", "x", "hello", "a", True),
        Task("instances", "y", "there", "b", False),
        Task("open", "open 1", "why?", None, True),
    ):
        results += measure(engine, task, block_length=8, threshold=0.9)
    main, blocks, thresholds = quality.tables(results, 8, 0.9)
    assert main.count("\n") == 3 and "| instances | 2 | 0% |" in main and "| open | 1 |  |" in main
    assert "instances, n 1: acceptance" in blocks and "open: × AR in seconds" in blocks
    assert "open: repeated 4-grams" in thresholds and "instances: exact" in thresholds
    assert "phrasings" not in main
    assert "open 1, ar and self-speculation:" in quality.samples(results)


def test_perplexity_counts_what_is_not_given(llama_engine):
    model = llama_engine.model
    import torch

    tokens = [5, 9, 3, 77, 8]
    logits = model(torch.tensor(tokens), model.new_cache(8), causal=True).float().log_softmax(-1)
    expected = torch.exp(-(logits[2, 77] + logits[3, 8]) / 2)
    assert perplexity(model, [(tokens, 3)]) == pytest.approx(float(expected), rel=1e-5)


def test_results_survive_json():
    one = result(lengths=[1, 2], text="x")
    assert Result(**one.to_json()) == one == dataclasses.replace(one)
