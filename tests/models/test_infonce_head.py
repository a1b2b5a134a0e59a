"""The loss, against brute force in float64 and across processes."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tests.helpers.processes import run_ranks
from vito_mm.models import InfoNCEHead

TAU = 0.1


def brute_force(
    online: np.ndarray,
    target: np.ndarray,
    tau: float,
    all_views: bool = False,
    files: Sequence[int] | None = None,
):
    """The formula of the paper, one exponential at a time. Arrays of shape (V, N, D).

    Videos with the same file, if it is not negative, are no negatives of each other.
    """
    num_views, num_videos, _ = online.shape
    files = files or range(num_videos)
    same = [
        [m == n or files[m] == files[n] >= 0 for m in range(num_videos)] for n in range(num_videos)
    ]
    z = online / np.linalg.norm(online, axis=-1, keepdims=True) / math.sqrt(tau)
    t = target / np.linalg.norm(target, axis=-1, keepdims=True) / math.sqrt(tau)
    terms = []
    for i in range(num_views):
        for j in range(num_views):
            if i == j:
                continue
            for n in range(num_videos):
                positive = math.exp(z[i, n] @ t[j, n])
                views = range(num_views) if all_views else [j]
                negatives = sum(
                    math.exp(z[i, n] @ t[k, m])
                    for k in views
                    for m in range(num_videos)
                    if not same[n][m]
                )
                terms.append(-math.log(positive / (positive + negatives)))
    return sum(terms) / num_videos, np.mean(terms)


def projections(num_views: int, num_videos: int = 5, dim: int = 7) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(num_views)
    shape = (num_views, num_videos, dim)
    return tuple(
        torch.randn(shape, generator=generator, dtype=torch.float64) * scale for scale in (3.0, 0.2)
    )


@pytest.mark.parametrize('num_views', [2, 3, 4])
@pytest.mark.parametrize('negatives', ['target_view', 'all_views'])
@pytest.mark.parametrize('files', [None, [7, 3, 7, 7, -1, 3, -1], [5] * 7])
def test_loss_and_gradient_are_the_formula(num_views, negatives, files):
    """Without the terms of clips of one file; the target gets no gradient."""
    online, target = (x.requires_grad_() for x in projections(num_views, 7, 5))
    ids = None if files is None else torch.tensor(files)
    losses = InfoNCEHead(TAU, negatives)(list(online), list(target), ids)
    losses['loss'].backward()
    assert target.grad is None

    def expected(z, files=files):
        return brute_force(z, target.detach().numpy(), TAU, negatives == 'all_views', files)

    values = online.detach().numpy()
    found = losses['loss'].item(), losses['pair_nll'].item()
    assert found == pytest.approx(expected(values), rel=1e-12, abs=1e-12)
    rng = np.random.default_rng(0)
    for index in zip(*(rng.integers(0, n, 10) for n in online.shape), strict=True):
        step = np.zeros(online.shape)
        step[index] = 1e-6
        slope = (expected(values + step)[0] - expected(values - step)[0]) / 2e-6
        assert online.grad[index].item() == pytest.approx(slope, rel=1e-5, abs=1e-8)
    assert all(value.isfinite() for value in losses.values())
    free = InfoNCEHead(TAU, negatives, mask_same_file=False)(list(online), list(target), ids)
    assert free['loss'].item() == pytest.approx(expected(values, None)[0], rel=1e-12)


def test_similarity_of_negatives_leaves_clips_of_one_file_out():
    online, target = projections(2, 4)
    z, t = (torch.nn.functional.normalize(x, dim=-1) for x in (online, target))
    losses = InfoNCEHead(TAU)(list(online), list(target), torch.tensor([1, 1, 2, 3]))
    others = [[2, 3], [2, 3], [0, 1, 3], [0, 1, 2]]
    means = [
        np.mean([float(z[i, n] @ t[1 - i, m]) for m in others[n]])
        for i in range(2)
        for n in range(4)
    ]
    assert losses['similarity_neg'].item() == pytest.approx(np.mean(means), rel=1e-6)


@pytest.mark.parametrize('files', [None, [3, 8, -1, 4, 2]])
@pytest.mark.parametrize('negatives', ['target_view', 'all_views'])
def test_different_files_change_no_bit(negatives, files):
    online, target = projections(3)
    results = []
    for ids in (None, [*range(5)], files):
        z = online.float().requires_grad_()
        ids = None if ids is None else torch.tensor(ids)
        losses = InfoNCEHead(TAU, negatives)(list(z), list(target.float()), ids)
        losses['loss'].backward()
        results.append([z.grad, *losses.values()])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize('dim', [4, 7, 256])
@pytest.mark.parametrize('num_views', [2, 3])
@pytest.mark.parametrize('noise', [0.0, 1e-8])
def test_on_collapse_the_accuracy_is_that_of_chance(num_views, dim, noise):
    """All projections are one point, or as good as: a guess among what they are compared with."""
    generator = torch.Generator().manual_seed(0)
    point = torch.randn(dim, generator=generator)
    views = [point + noise * torch.randn(6, dim, generator=generator) for _ in range(num_views)]
    for negatives, candidates in (('target_view', 6), ('all_views', 1 + 5 * num_views)):
        found = InfoNCEHead(TAU, negatives)(views, views)['top1_acc'].item()
        assert found == pytest.approx(100 / candidates, rel=1e-5)
    two_files = torch.tensor([1, 1, 1, 2, 2, 2])
    found = InfoNCEHead(TAU)(views, views, two_files)['top1_acc'].item()
    assert found == pytest.approx(100 / 4, rel=1e-5)


def test_logs_show_learning_and_collapse():
    online = torch.nn.functional.one_hot(torch.arange(6)).double()
    perfect = InfoNCEHead(TAU)([online, online], [online, online])
    assert perfect['top1_acc'].item() == 100
    assert perfect['similarity_pos'].item() == pytest.approx(1)
    assert perfect['similarity_neg'].item() == pytest.approx(0)
    # Variance of a one-hot coordinate over 6 videos: 1/6 * 5/6.
    assert perfect['embedding_std'].item() == pytest.approx(math.sqrt(5) / 6 * math.sqrt(6))

    online, target = torch.eye(4), torch.eye(4)
    online[0] = target[1]
    assert InfoNCEHead()([online, target], [target, target])['top1_acc'].item() == 87.5

    same = torch.ones(6, 4)
    collapsed = InfoNCEHead(TAU)([same, same], [same, same])
    assert collapsed['pair_nll'].item() == pytest.approx(math.log(6), abs=1e-5)
    assert collapsed['similarity_neg'].item() == pytest.approx(1, abs=1e-6)
    assert collapsed['embedding_std'].item() == pytest.approx(0, abs=1e-6)


def test_half_precision_input_is_summed_in_float32():
    online, target = (x.bfloat16() for x in projections(2))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = InfoNCEHead(TAU)(list(online), list(target))['loss']
    assert loss.dtype == torch.float32
    expected, _ = brute_force(online.double().numpy(), target.double().numpy(), TAU)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ('settings', 'shape', 'name'),
    [
        (dict(temperature=0.0), (2, 4, 8), 'temperature'),
        (dict(negatives='none'), (2, 4, 8), 'negatives'),
        ({}, (1, 4, 8), 'at least 2 views'),
        ({}, (2, 1, 8), 'batch_size'),
    ],
)
def test_bad_settings_and_too_few_views_or_videos_are_named(settings, shape, name):
    with pytest.raises(ValueError, match=name):
        InfoNCEHead(**settings)([*torch.randn(shape)], [*torch.randn(shape)])


WORKER = """
import sys, torch, torch.distributed as dist
from vito_mm.models import InfoNCEHead
dist.init_process_group('gloo')
rank, world = dist.get_rank(), dist.get_world_size()
data = torch.load(sys.argv[1])
net = torch.nn.Linear(6, 4, bias=False).double()
net.load_state_dict(data['net'])
net = torch.nn.parallel.DistributedDataParallel(net)
local = slice(rank * 8 // world, (rank + 1) * 8 // world)
views = [net(view[local]) for view in data['views']]
ids = data['ids']
ids = ids if ids is None else ids[local]
losses = InfoNCEHead(0.1, data['negatives'])(views, [t[local] for t in data['target']], ids)
losses['loss'].backward()
values = {name: value.detach().clone() for name, value in losses.items()}
for value in values.values():
    dist.all_reduce(value)
    value /= world
if rank == 0:
    torch.save(dict(grad=net.module.weight.grad, **values), sys.argv[2])
"""


@pytest.mark.parametrize(
    ('negatives', 'files'),
    [('target_view', None), ('all_views', [4, 0, 1, 4, 4, 2, 0, -1]), ('target_view', [6, 1] * 4)],
)
def test_two_ranks_are_one_rank_on_the_joined_batch(tmp_path, negatives, files):
    """Loss, gradients (averaged by DDP) and logs do not depend on how the batch is cut."""
    ids = None if files is None else torch.tensor(files)
    torch.manual_seed(0)
    net = torch.nn.Linear(6, 4, bias=False).double()
    views = torch.randn(3, 8, 6, dtype=torch.float64)
    target = torch.randn(3, 8, 4, dtype=torch.float64)
    torch.save(
        dict(net=net.state_dict(), views=views, target=target, negatives=negatives, ids=ids),
        tmp_path / 'in.pth',
    )
    run_ranks(WORKER, tmp_path, 2, tmp_path / 'in.pth', tmp_path / 'out.pth')
    joined = torch.load(tmp_path / 'out.pth')

    losses = InfoNCEHead(0.1, negatives)([net(view) for view in views], list(target), ids)
    losses['loss'].backward()
    torch.testing.assert_close(joined.pop('grad'), net.weight.grad, rtol=1e-12, atol=1e-14)
    # The spread of embeddings is that of the local batch by definition.
    joined.pop('embedding_std')
    for name, value in joined.items():
        torch.testing.assert_close(value, losses[name].detach(), rtol=1e-6, atol=1e-9)
