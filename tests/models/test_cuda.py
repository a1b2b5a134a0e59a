"""What a GPU computes, against the CPU. Skipped on machines without one."""

import copy

import numpy as np
import pytest
import torch

from tests.datasets.test_augmentations import FIXED, photo
from tests.models.test_global_batch import GROUP_NORM, batch, build, gradients, losses_of
from vito_mm.engine import SkipNonFiniteOptimWrapper
from vito_mm.engine.optimizers.foreach_lars import ForeachLARS
from vito_mm.models.preprocessors.batch_augmentation import augment_batch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
BATCH_NORM = dict(type='BN')


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    """Float32 without TensorFloat-32, which has 10 bits."""
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    monkeypatch.setattr(torch.backends.cuda.matmul, 'allow_tf32', False)


@pytest.mark.parametrize('norm', [GROUP_NORM, BATCH_NORM], ids=['group norm', 'batch norm'])
def test_a_step_has_the_gradients_of_the_cpu(norm):
    cpu = build(norm)
    gpu = copy.deepcopy(cpu).cuda()
    expected, got = losses_of(cpu, batch()), losses_of(gpu, batch())
    torch.testing.assert_close(got['loss'].cpu(), expected['loss'], rtol=1e-4, atol=1e-5)
    reference = gradients(cpu)
    largest = max(grad.abs().max() for grad in reference.values())
    for name, grad in gradients(gpu).items():
        torch.testing.assert_close(
            grad.cpu(), reference[name], rtol=1e-2, atol=1e-4 * largest, msg=name
        )


@pytest.mark.parametrize('micro_batch_size', [None, 2])
def test_bfloat16_is_near_float32_and_keeps_float32_weights(micro_batch_size):
    models = [build(GROUP_NORM, micro_batch_size=micro_batch_size).cuda() for _ in range(2)]
    losses = []
    for model, dtype in zip(models, (None, 'bfloat16'), strict=True):
        before = [p.detach().clone() for p in model.parameters() if p.requires_grad]
        parameters = [p for p in model.parameters() if p.requires_grad]
        wrapper = SkipNonFiniteOptimWrapper(optimizer=ForeachLARS(parameters, lr=0.1), dtype=dtype)
        losses.append(model.train_step(batch(), optim_wrapper=wrapper)['loss'].item())
        assert not wrapper.skipped_last_step
        assert all(p.dtype == torch.float32 for p in model.parameters())
        assert any((a != b).any() for a, b in zip(before, parameters, strict=True))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0], 'nothing was computed in bfloat16'


def test_gradients_that_are_not_finite_leave_the_weights_as_they_were():
    model = build(BATCH_NORM).cuda()
    parameters = [p for p in model.parameters() if p.requires_grad]
    wrapper = SkipNonFiniteOptimWrapper(optimizer=ForeachLARS(parameters, lr=0.1), dtype='bfloat16')
    model.train_step(batch(), optim_wrapper=wrapper)
    model.projector.fc0.weight.register_hook(lambda grad: grad * float('nan'))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.train_step(batch(), optim_wrapper=wrapper)
    assert wrapper.skipped_last_step
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]), name


def test_the_batch_augmentation_computes_what_the_cpu_computes():
    images = np.stack([photo(seed).transpose(2, 0, 1) for seed in range(len(FIXED))])
    drawn = np.array([*FIXED.values()])
    cpu = augment_batch(torch.from_numpy(images), drawn, is_rgb=False)
    gpu = augment_batch(torch.from_numpy(images).cuda(), drawn, is_rgb=False)
    # Solarizing turns a level beside the threshold to the other side of it.
    off = ((gpu.cpu() - cpu).abs() > 0.05).double().mean()
    assert off < 1e-3
