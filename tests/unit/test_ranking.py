"""Ranking by stretches gives what torch's own ranking gives."""

import pytest
import torch

from nemodiff.samplers.topk import best, largest


@pytest.mark.parametrize("vocabulary", [199, 256, 2048, 49152])
@pytest.mark.parametrize("rows", [1, 7])
def test_it_is_torchs_own_ranking(vocabulary, rows):
    x = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(rows))
    assert torch.equal(best(x), x.argmax(-1))
    values, indices = largest(x, 5)
    expected = x.topk(5, dim=-1)
    assert torch.equal(values, expected.values) and torch.equal(indices, expected.indices)


def test_the_best_may_share_a_stretch():
    x = torch.zeros(2, 2048)
    x[0, 700:705] = torch.arange(1.0, 6.0)
    x[1, [3, 300, 600, 900, 2047]] = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    assert largest(x, 5)[1].tolist() == [[704, 703, 702, 701, 700], [2047, 900, 600, 300, 3]]


def test_the_first_of_equals_wins():
    x = torch.zeros(2, 1024)
    x[0, [300, 301, 900]] = 1
    x[1, 5] = -1
    assert best(x).tolist() == [300, 0]
