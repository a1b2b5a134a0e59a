"""The loss of the global batch, however it is cut over micro-batches and ranks."""

import subprocess
import sys

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample

from tests.conftest import REPO
from tests.helpers.processes import run_ranks, user_environment
from tests.models.test_vito import config
from vito_mm.registry import MODELS

GROUP_NORM = dict(type='GN', num_groups=4)
CLIPS = 8
FILES = (2**62, 1, 2**62, 2, 3, 3, 2**62, 4)


def build(norm_cfg: dict, **changes) -> torch.nn.Module:
    init_default_scope('mmpretrain')
    base = config()
    base['backbone']['norm_cfg'] = norm_cfg
    if norm_cfg is GROUP_NORM:
        base['projector']['norm_cfg'] = norm_cfg
    torch.manual_seed(0)
    model = MODELS.build(base | changes)
    model.init_weights()
    model.start_target()
    return model


def batch(num_clips: int = CLIPS, size: int = 32) -> dict:
    """What the data loader yields: views of 8-bit images, some clips of the same file."""
    generator = torch.Generator().manual_seed(1)
    shape = (num_clips, 3, size, size)
    files = [FILES[clip % CLIPS] for clip in range(num_clips)]
    return dict(
        inputs=[
            torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in range(3)
        ],
        data_samples=[DataSample(metainfo=dict(video_id=file)) for file in files],
    )


def losses_of(model: torch.nn.Module, data: dict) -> dict[str, torch.Tensor]:
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    losses['loss'].backward()
    return losses


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize('frozen', [False, True], ids=['group norm', 'frozen batch norm'])
@pytest.mark.parametrize('micro_batch_size', [2, 4, 8])
def test_micro_batches_have_the_gradients_of_the_complete_batch(micro_batch_size, frozen):
    norm = dict(type='BN') if frozen else GROUP_NORM
    changes = {}
    if frozen:
        changes['projector'] = config()['projector'] | dict(norm_cfg=GROUP_NORM)
        changes['backbone'] = config()['backbone'] | dict(norm_eval=True)
    whole = build(norm, **changes)
    cut = build(norm, micro_batch_size=micro_batch_size, **changes)
    expected, got = losses_of(whole.train(), batch()), losses_of(cut.train(), batch())
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-5, msg=name)
    reference = gradients(whole)
    largest = max(grad.abs().max() for grad in reference.values())
    for name, grad in gradients(cut).items():
        torch.testing.assert_close(grad, reference[name], rtol=1e-3, atol=1e-5 * largest)


def test_micro_batches_are_not_gradient_accumulation():
    """Negatives come from all clips: the loss of two halves by themselves is another."""
    whole = losses_of(build(GROUP_NORM), batch())['loss']
    halves = [
        losses_of(
            build(GROUP_NORM), dict(inputs=[v[part] for v in batch()['inputs']], data_samples=None)
        )['loss']
        for part in (slice(0, 4), slice(4, 8))
    ]
    assert abs(sum(halves) / 2 - whole) > 0.1


def test_batch_norm_counts_a_micro_batch_once():
    """Running statistics: once for each view and micro-batch, as in a forward pass of each."""
    cut, plain = build(dict(type='BN'), micro_batch_size=4), build(dict(type='BN'))
    losses_of(cut, batch())
    images = plain.data_preprocessor(batch(), True)['inputs']
    with torch.no_grad():
        for view in images:
            for part in (view[:4], view[4:]):
                plain.projector(plain.neck(plain.backbone(part.contiguous())))
    for name, buffer in plain.named_buffers():
        if not name.startswith('target_net'):
            torch.testing.assert_close(dict(cut.named_buffers())[name], buffer, msg=name)
    assert cut.backbone.bn1.num_batches_tracked == 6
    assert cut.backbone.bn1.track_running_stats


@pytest.mark.parametrize('micro_batch_size', [None, 4])
def test_the_files_of_clips_reach_the_loss(micro_batch_size):
    """That of the head by itself, which the formula tests."""
    model = build(GROUP_NORM, micro_batch_size=micro_batch_size).eval()
    images = build(GROUP_NORM).data_preprocessor(batch(), True)['inputs']
    with torch.no_grad():
        online = [model.projector(model.neck(model.backbone(view)))[0] for view in images]
        target = [model.target_net(view)[0] for view in images]
        expected = model.head(online, target, torch.tensor(FILES))['loss']
        unmasked = model.head(online, target)['loss']
    found = losses_of(model, batch())['loss']
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert expected < unmasked - 0.1
    without = dict(inputs=batch()['inputs'], data_samples=None)
    torch.testing.assert_close(losses_of(model, without)['loss'], unmasked, rtol=1e-5, atol=1e-6)


def test_random_parts_of_the_network_are_the_same_when_computed_again():
    """Drop path: the second pass of a micro-batch draws what the first one drew."""
    changes = dict(backbone=config()['backbone'] | dict(norm_cfg=GROUP_NORM, drop_path_rate=0.5))
    cut = build(GROUP_NORM, micro_batch_size=4, **changes).train()
    torch.manual_seed(3)
    losses_of(cut, batch())
    first = gradients(cut)
    # By hand: embed all with a graph, micro-batch by micro-batch, with the same numbers.
    plain = build(GROUP_NORM, **changes).train()
    images = plain.data_preprocessor(batch(), True)['inputs']
    torch.manual_seed(3)
    online, target = [], []
    for view in images:
        with torch.no_grad():
            parts = [plain.target_net(part)[0] for part in (view[:4], view[4:])]
        target.append(torch.cat(parts))
        parts = [plain.projector(plain.neck(plain.backbone(p)))[0] for p in (view[:4], view[4:])]
        online.append(torch.cat(parts))
    plain.head(online, target, torch.tensor(FILES))['loss'].backward()
    largest = max(grad.abs().max() for grad in first.values())
    for name, grad in gradients(plain).items():
        torch.testing.assert_close(first[name], grad, rtol=1e-3, atol=1e-5 * largest)


def test_a_real_step_with_micro_batches_moves_the_weights():
    model = build(dict(type='BN'), micro_batch_size=2)
    before = model.backbone.conv1.weight.detach().clone()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    log = model.train_step(batch(), OptimWrapper(optimizer))
    assert log['loss'] > 0
    assert not torch.equal(model.backbone.conv1.weight, before)


def test_other_modes_than_training_preprocess_as_usual():
    model = build(dict(type='BN'), micro_batch_size=2).eval()
    data = model.data_preprocessor(dict(inputs=batch()['inputs'][0], data_samples=None), False)
    assert data['inputs'].dtype == torch.float32
    assert len(model(data['inputs'], mode='tensor')) == 2


@pytest.mark.parametrize('value', [0, 1])
def test_a_micro_batch_needs_two_clips(value):
    with pytest.raises(ValueError, match='micro_batch_size must be at least 2'):
        build(dict(type='BN'), micro_batch_size=value)


MEMORY = """
from tests.models.test_global_batch import build, batch, losses_of
def peak():  # not ru_maxrss, which knows the memory of the process that started this one
    lines = open('/proc/self/status').readlines()
    return next(int(line.split()[1]) for line in lines if line.startswith('VmHWM'))
grown = []
for micro_batch_size in (16, None):  # the smaller peak first
    model = build(dict(type='BN'), micro_batch_size=micro_batch_size)
    losses_of(model, batch(16, 64))
    before = peak()
    losses_of(model, batch(128, 64))
    grown.append((peak() - before) / 1024)
print(*grown)
"""


def test_memory_does_not_grow_with_the_batch():
    """Peak memory of a process, beyond a first step of 16 clips, in MiB."""
    run = subprocess.run(
        [sys.executable, '-c', MEMORY],
        cwd=REPO,
        # Freed memory goes back at once, so that the peak is what was in use.
        env=user_environment(MALLOC_MMAP_THRESHOLD_='16384', MALLOC_TRIM_THRESHOLD_='16384'),
        capture_output=True,
        text=True,
        check=True,
    )
    cut, whole = map(float, run.stdout.splitlines()[-1].split())
    images = 128 * 3 * 3 * 64 * 64 / 2**20
    assert whole > 30 * images
    # The 8-bit images and their projections stay, and some bookkeeping for each micro-batch.
    assert cut - 2 * images < 0.1 * whole


def test_the_loss_holds_some_rows_of_similarities_at_a_time(monkeypatch):
    """More clips than that give the same numbers, gradients too."""
    from vito_mm.models.heads import infonce_head

    results = []
    for rows in (512, 3):
        monkeypatch.setattr(infonce_head, 'MAX_ROWS', rows)
        for negatives in infonce_head.NEGATIVES:
            generator = torch.Generator().manual_seed(0)
            shape = (2, 8, 6)
            online = torch.randn(shape, dtype=torch.float64, generator=generator)
            target = torch.randn(shape, dtype=torch.float64, generator=generator)
            online.requires_grad_()
            losses = infonce_head.InfoNCEHead(negatives=negatives)(online, target)
            losses['loss'].backward()
            results.append({**losses, 'gradient': online.grad})
    for negatives in range(2):
        for name, value in results[negatives].items():
            torch.testing.assert_close(results[2 + negatives][name], value, msg=name)


WORKER = """
import sys, torch, torch.distributed as dist
from mmengine.model import MMDistributedDataParallel
from tests.models.test_global_batch import CLIPS, GROUP_NORM, batch, build, gradients
micro = int(sys.argv[2]) or None
dist.init_process_group('gloo')
rank, world = dist.get_rank(), dist.get_world_size()
model = build(GROUP_NORM, micro_batch_size=micro)
ddp = MMDistributedDataParallel(model, broadcast_buffers=False)
local = slice(rank * CLIPS // world, (rank + 1) * CLIPS // world)
whole = batch()
data = dict(
    inputs=[view[local] for view in whole['inputs']], data_samples=whole['data_samples'][local]
)
losses = ddp(**model.data_preprocessor(data, True), mode='loss')
losses['loss'].backward()
values = {name: value.detach().clone() for name, value in losses.items()}
for value in values.values():
    dist.all_reduce(value)
    value /= world
if rank == 0:
    torch.save(dict(losses=values, grads=gradients(model)), sys.argv[1])
"""


@pytest.mark.parametrize(('ranks', 'micro'), [(2, 0), (4, 2)])
def test_ranks_have_the_loss_and_gradients_of_one(tmp_path, ranks, micro):
    result = tmp_path / 'result.pth'
    run_ranks(WORKER, tmp_path, ranks, result, micro)
    got = torch.load(result)
    model = build(GROUP_NORM)
    expected = losses_of(model, batch())
    for name, value in expected.items():
        if name != 'embedding_std':  # over the local batch, by definition
            torch.testing.assert_close(got['losses'][name], value, rtol=1e-4, atol=1e-5)
    reference = gradients(model)
    largest = max(grad.abs().max() for grad in reference.values())
    assert got['grads'].keys() == reference.keys()
    for name, grad in got['grads'].items():
        torch.testing.assert_close(grad, reference[name], rtol=1e-3, atol=1e-5 * largest)


STATISTICS = """
import sys, torch, torch.distributed as dist
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from tests.models.test_global_batch import CLIPS, batch, build
from tests.models.test_vito import Counted
dist.init_process_group('gloo')
rank = dist.get_rank()
model = build(dict(type='BN'), micro_batch_size=2)
backbone, _, projector = model.target_net.module
counted = [Counted(backbone.bn1), Counted(projector.bn0)]
ddp = MMDistributedDataParallel(model, broadcast_buffers=False)
parameters = [p for p in model.parameters() if p.requires_grad]
wrapper = OptimWrapper(torch.optim.SGD(parameters, lr=0.1))
local = slice(rank * CLIPS // 2, (rank + 1) * CLIPS // 2)
for step in range(2):
    data = dict(inputs=[view[local] for view in batch()['inputs']], data_samples=None)
    ddp.train_step(data, wrapper)
    model.update_target(step / 2)
for one in counted:
    one.check(passes=2 * 3 * 2)
torch.save(model.target_net.module.state_dict(), f'{sys.argv[1]}.{rank}')
"""


def test_target_networks_of_two_ranks(tmp_path):
    """The same weights on both; running statistics of what passed through each, as of any BN."""
    result = tmp_path / 'target'
    run_ranks(STATISTICS, tmp_path, 2, result)
    first, second = (torch.load(f'{result}.{rank}') for rank in range(2))
    differ = {name for name, value in first.items() if not torch.equal(value, second[name])}
    assert all('running_' in name for name in differ)
    assert '0.bn1.running_mean' in differ
