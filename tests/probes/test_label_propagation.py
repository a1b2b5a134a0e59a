"""Label propagation against a direct computation of its definition."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vito_mm.probes import label_propagation
from vito_mm.probes.encoder import Encoder
from vito_mm.probes.label_propagation import PROPAGATIONS, Propagation, propagate, segment_frames

GRID = 7, 9


def unit(rng, count, channels=5):
    features = rng.normal(size=(count, channels))
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def directly(queries, keys, values, settings):
    """Each cell by itself, in float64."""
    height, width = GRID
    out = np.zeros((len(queries), values[0].shape[1]))
    for cell, query in enumerate(queries):
        y, x = divmod(cell, width)
        candidates = []
        for number, (key, value) in enumerate(zip(keys, values, strict=True)):
            for other in range(height * width):
                down, across = other // width - y, other % width - x
                if settings.square:
                    near = max(abs(down), abs(across)) <= settings.radius
                else:
                    near = np.hypot(down, across) < settings.radius
                if near or (number == 0 and not settings.restrict_first):
                    candidates.append((key[other] @ query, value[other]))
        candidates.sort(key=lambda pair: -pair[0])
        best = candidates[: settings.top_k]
        weights = np.exp(np.array([cosine for cosine, _ in best]) / settings.temperature)
        out[cell] = weights @ np.array([value for _, value in best]) / weights.sum()
    return out


@pytest.mark.parametrize('tile', [3, 100], ids=['in tiles', 'all at once'])
@pytest.mark.parametrize(
    'settings',
    [
        Propagation(radius=3, top_k=4),
        Propagation(radius=2, top_k=4, square=True),
        Propagation(radius=3, top_k=6, restrict_first=False),
        Propagation(radius=1, top_k=20),
    ],
    ids=['circle', 'square', 'free first frame', 'fewer cells than wanted'],
)
def test_labels_are_those_of_the_most_similar_cells(settings, tile, monkeypatch):
    monkeypatch.setattr(label_propagation, '_TILE', tile)
    rng = np.random.default_rng(0)
    cells = GRID[0] * GRID[1]
    queries, keys = unit(rng, cells), [unit(rng, cells) for _ in range(3)]
    values = [rng.random((cells, 2)) for _ in keys]
    tensors = [list(map(torch.from_numpy, part)) for part in (keys, values)]
    found = propagate(torch.from_numpy(queries), *tensors, GRID, settings)
    np.testing.assert_allclose(found, directly(queries, keys, values, settings), atol=1e-12)


def test_context_frames():
    vfs, crw, dino = (replace(PROPAGATIONS[name], context=3) for name in ('vfs', 'crw', 'dino'))
    assert [vfs.context_of(t) for t in (1, 2, 5)] == [[0, 0], [0, 0, 1], [0, 2, 3, 4]]
    assert [crw.context_of(t) for t in (1, 5)] == [[0, 0, 0, 0], [0, 2, 3, 4]]
    assert [dino.context_of(t) for t in (1, 2, 5)] == [[0], [0, 1], [0, 2, 3, 4]]


class Colours(torch.nn.Module):
    """Mean colours of 4 x 4 pixels."""

    def __init__(self):
        super().__init__()
        self.layer1 = torch.nn.AvgPool2d(4)
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.layer1(x)


@pytest.mark.parametrize('name', PROPAGATIONS)
def test_squares_of_their_own_colours_are_followed(name):
    frames, masks = [], []
    for step in range(6):
        frame, mask = np.full((64, 96, 3), 30, np.uint8), np.zeros((64, 96), np.uint8)
        for number, colour in enumerate(((250, 10, 10), (10, 250, 10)), start=1):
            top, left = 8 + 28 * (number - 1), 16 + 8 * step * (1 if number == 1 else 0)
            frame[top : top + 24, left : left + 24] = colour
            mask[top : top + 24, left : left + 24] = number
        frames.append(frame)
        masks.append(mask)
    settings = replace(PROPAGATIONS[name], short_side=64, multiple=4, radius=6)
    encoder = Encoder(Colours(), lambda images: images.float() - 60)
    found = list(segment_frames(encoder, frames, masks[0], 'layer1', settings))
    assert len(found) == 5
    for objects, mask in zip(found, masks[1:], strict=True):
        assert objects.dtype == np.uint8
        for number in (1, 2):
            a, b = objects == number, mask == number
            assert (a & b).sum() / (a | b).sum() > 0.7


def test_memory_holds_the_context_alone():
    class Counting(Encoder):
        def __call__(self, frames, layer):
            found = super().__call__(frames, layer)
            alive.append(sum(torch.is_tensor(x) and x.shape == (64, 3) for x in gc_objects()))
            return found

    import gc

    gc_objects = gc.get_objects
    alive = []
    frames = [np.random.default_rng(i).integers(0, 255, (32, 32, 3), np.uint8) for i in range(12)]
    mask = np.zeros((32, 32), np.uint8)
    mask[:16] = 1
    settings = replace(PROPAGATIONS['vfs'], short_side=32, radius=3, context=3)
    list(segment_frames(Counting(Colours(), torch.Tensor.float), frames, mask, 'layer1', settings))
    assert max(alive) <= 5  # three frames, the first, and the one before they are dropped
