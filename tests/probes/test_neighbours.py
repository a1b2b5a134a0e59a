"""Exact search against sorting all products in double precision."""

import numpy as np
import pytest
import torch

from vito_mm.probes import neighbours


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
@pytest.mark.parametrize('elements', [1, 2**27])
@pytest.mark.parametrize('k', [1, 5, 200])
def test_blocks_find_what_sorting_everything_finds_and_of_equals_the_first(
    monkeypatch, device, elements, k
):
    if device == 'cuda' and not torch.cuda.is_available():
        pytest.skip('no GPU')
    monkeypatch.setattr(neighbours, '_ROWS', 7)
    monkeypatch.setattr(neighbours, '_ELEMENTS', elements)
    # Small integers: products are exact, and many are equal.
    queries, gallery = (
        torch.randint(-2, 3, (n, 6), generator=torch.Generator().manual_seed(n)).to(device).float()
        for n in (30, 100)
    )
    values, indices = neighbours.nearest(queries, gallery, k)
    products = (queries.cpu().double() @ gallery.cpu().double().T).numpy()
    expected = np.argsort(-products, axis=1, kind='stable')[:, :k]
    np.testing.assert_array_equal(indices.cpu(), expected)
    np.testing.assert_array_equal(values.cpu(), np.take_along_axis(products, expected, axis=1))


def test_queries_decide_the_precision_and_there_may_be_none():
    gallery = torch.rand(10, 3)
    assert neighbours.nearest(gallery[:2].double(), gallery, 3)[0].dtype == torch.float64
    assert neighbours.nearest(gallery[:0], gallery, 3)[1].shape == (0, 3)
