"""Comparing samplers: ranking and calibration figures by hand, and sweeps of a real tiny engine."""

import pytest
import torch

from nemodiff.evaluate.ranking_metrics import (
    ENTROPY_BOUNDS,
    THRESHOLDS,
    Point,
    auc,
    calibration,
    calibration_error,
    pareto,
    recall_at,
    tpf_at,
)
from tests.helpers.engines import WithText


def test_auc_is_the_chance_that_right_outranks_wrong():
    right = torch.tensor([True, False, True, False])
    assert auc(torch.tensor([0.9, 0.1, 0.8, 0.2]), right) == 1.0
    assert auc(torch.tensor([0.1, 0.9, 0.2, 0.8]), right) == 0.0
    assert auc(torch.tensor([0.5, 0.5, 0.5, 0.5]), right) == 0.5
    assert auc(torch.tensor([0.9, 0.5, 0.5, 0.1]), right) == pytest.approx(3.5 / 4)
    with pytest.raises(ValueError, match="right and wrong"):
        auc(torch.tensor([0.1, 0.2]), torch.tensor([True, True]))


def test_recall_at_a_precision():
    right = torch.tensor([True, True, False, True, False])
    score = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    assert recall_at(score, right, 1.0) == pytest.approx(2 / 3)
    assert recall_at(score, right, 0.75) == 1.0
    # Guesses of equal score are taken together.
    assert recall_at(torch.tensor([0.9, 0.9, 0.9, 0.1, 0.1]), right, 1.0) == 0.0


def test_calibration_by_bins():
    probability = torch.tensor([0.05, 0.15, 0.95, 0.95])
    right = torch.tensor([False, True, True, False])
    assert [(round(p, 2), share, count) for p, share, count in calibration(probability, right)] == [
        (0.05, 0.0, 1),
        (0.15, 1.0, 1),
        (0.95, 0.5, 2),
    ]
    assert calibration_error(probability, right) == pytest.approx((0.05 + 0.85 + 2 * 0.45) / 4, abs=1e-6)


def test_a_sweep_compares_with_serial_denoising(llama_engine):
    points = list(pareto(WithText(llama_engine), ["one", "two"], ["confidence", "entropy"], 4, max_new_tokens=12))
    assert points[0].sampler == "serial" and points[0].agreement == points[0].identical == 1.0
    assert [p.setting for p in points if p.sampler == "confidence"] == list(THRESHOLDS)
    assert [p.setting for p in points if p.sampler == "entropy"] == list(ENTROPY_BOUNDS)
    assert all(p.tpf >= points[0].tpf - 1e-9 and 0 <= p.agreement <= 1 for p in points)


def test_tpf_at_equal_agreement_lies_on_the_frontier():
    points = [Point("a", s, tpf, 1.0, agrees, 0.0) for s, tpf, agrees in ((0.9, 1.0, 1.0), (0.5, 3.0, 0.8))]
    assert tpf_at(points, "a", 0.9) == pytest.approx(2.0)
    assert tpf_at(points, "a", 0.8) == 3.0
    assert tpf_at(points, "a", 1.0) == 1.0
    assert tpf_at(points, "b", 0.5) is None
