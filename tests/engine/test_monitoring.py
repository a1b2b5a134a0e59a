"""Numbers that are not finite, embeddings that collapse, and the record of a run."""

import hashlib
import json
import subprocess

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import OPTIM_WRAPPERS

from tests.conftest import REPO
from tests.engine.test_hooks import run, tiny_config
from tests.helpers.processes import run_ranks
from vito_mm.engine import SkipNonFiniteOptimWrapper
from vito_mm.launch import build_runner


class Poison(Hook):
    """Spoils the pixels, or the gradients, of some iterations."""

    def __init__(self, iterations: set[int], pixels: bool = True) -> None:
        self.iterations = iterations
        self.pixels = pixels

    def before_train(self, runner) -> None:
        if not self.pixels:
            weight = runner.model.backbone.conv1.weight
            weight.register_hook(
                lambda grad: grad * float('inf') if runner.iter in self.iterations else grad
            )

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if self.pixels and runner.iter in self.iterations:
            data_batch['inputs'][0] = data_batch['inputs'][0].float()
            data_batch['inputs'][0][0] = float('nan')


def train(cfg, hook: Hook):
    runner = build_runner(cfg)
    runner.register_hook(hook)
    runner.train()
    return runner


def saved(work_dir, iteration: int) -> dict:
    return torch.load(work_dir / f'iter_{iteration}.pth')


def assert_same_weights(one: dict, other: dict) -> None:
    for key, value in one['state_dict'].items():
        if 'num_batches_tracked' not in key:
            assert torch.equal(value, other['state_dict'][key]), key


def log_of(work_dir) -> str:
    (file,) = work_dir.glob('*/*.log')
    return file.read_text()


@pytest.mark.parametrize('pixels', [True, False])
def test_a_step_that_is_not_finite_leaves_no_trace(textured_folder, tmp_path, pixels):
    """Weights, momenta, target and running statistics are those before; the next step moves."""
    options = {
        'default_hooks.checkpoint.interval': 1,
        'default_hooks.checkpoint.max_keep_ckpts': 4,
    }
    train(tiny_config(textured_folder, tmp_path / 'run', **options), Poison({2}, pixels))
    before, bad, good = (saved(tmp_path / 'run', iteration) for iteration in (2, 3, 4))
    assert_same_weights(bad, before)
    for name in ('backbone.conv1.weight', 'target_net.module.0.conv1.weight'):
        assert not torch.equal(good['state_dict'][name], bad['state_dict'][name])
    for state, earlier in zip(
        bad['optimizer']['state'].values(), before['optimizer']['state'].values(), strict=True
    ):
        assert torch.equal(state['exp_avg'], earlier['exp_avg'])
    log = log_of(tmp_path / 'run')
    assert log.count('is not finite') == 1
    assert 'iteration 3 (12 clips drawn): loss or gradient is not finite, step skipped' in log


@pytest.mark.parametrize(('poison', 'skipped'), [({1, 2, 4, 5}, 4), ({4, 5, 6, 7, 8}, None)])
def test_a_good_step_restarts_the_count_in_a_row_and_too_many_stop_the_run(
    textured_folder, tmp_path, poison, skipped
):
    options = {'train_cfg.max_iters': 9, 'default_hooks.non_finite.max_in_row': 2}
    cfg = tiny_config(textured_folder, tmp_path / 'run', **options)
    if skipped:
        runner = train(cfg, Poison(poison))
        (file,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
        assert json.loads(file.read_text().splitlines()[-1])['skipped_steps'] == skipped
        assert runner.model.target_net.steps.item() == 1 + 9 - skipped
        return
    with pytest.raises(FloatingPointError) as error:
        train(cfg, Poison(poison))
    message = str(error.value)
    assert 'in 3 optimizer steps in a row, the last at iteration 7 (28 clips drawn)' in message
    assert f'--resume {tmp_path}/run/iter_6.pth' in message
    weights = saved(tmp_path / 'run', 6)['state_dict']
    assert all(value.isfinite().all() for value in weights.values())


def test_a_bad_micro_batch_spoils_its_complete_step(textured_folder, tmp_path):
    options = {
        'optim_wrapper.accumulative_counts': 2,
        'default_hooks.checkpoint.max_keep_ckpts': 2,
    }
    train(tiny_config(textured_folder, tmp_path / 'run', **options), Poison({2}))
    assert_same_weights(saved(tmp_path / 'run', 4), saved(tmp_path / 'run', 2))


TWO_RANKS = """
import torch, torch.distributed as dist
from vito_mm.engine import SkipNonFiniteOptimWrapper
dist.init_process_group('gloo')
layer = torch.nn.Linear(2, 1)
torch.nn.init.ones_(layer.weight)
wrapper = SkipNonFiniteOptimWrapper(torch.optim.SGD(layer.parameters(), lr=0.1))
for step in range(3):
    # Not wrapped, so that only one rank sees the bad number.
    bad = step == 1 and dist.get_rank() == 1
    wrapper.update_params((layer(torch.ones(1, 2)) * (float('nan') if bad else 1)).sum())
    print(wrapper.skipped_last_step)
print(f'{layer.weight[0, 0].item():.1f}')
"""


def test_all_ranks_skip_a_step_that_one_of_them_cannot_make(tmp_path):
    for printed in run_ranks(TWO_RANKS, tmp_path, 2):
        assert printed.split() == ['False', 'True', 'False', '0.8']


def test_configs_of_0_1_0_find_the_wrapper_by_its_name_then():
    assert OPTIM_WRAPPERS.get('GuardedOptimWrapper') is SkipNonFiniteOptimWrapper


def test_an_unknown_dtype_is_named():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(ValueError, match=r'optim_wrapper\.dtype .*float8'):
        SkipNonFiniteOptimWrapper(optimizer, dtype='float8')


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_weights():
    layer = torch.nn.Linear(4, 4)
    wrapper = SkipNonFiniteOptimWrapper(
        torch.optim.SGD(layer.parameters(), lr=0.1), dtype='bfloat16'
    )
    with wrapper.optim_context(layer):
        out = layer(torch.rand(2, 4))
    assert out.dtype == torch.bfloat16
    wrapper.update_params(out.float().sum())
    assert layer.weight.dtype == torch.float32
    assert not wrapper.skipped_last_step


@pytest.mark.parametrize('collapsed', [True, False])
def test_collapse_is_told(textured_folder, tmp_path, collapsed):
    """A projector of zero weights: all embeddings are the same."""
    options = {
        'train_cfg.max_iters': 6,
        'optim_wrapper.optimizer.lr': 1e-12,
        'default_hooks.collapse.begin': 4,
        'default_hooks.collapse.interval': 2,
    }
    runner = build_runner(tiny_config(textured_folder, tmp_path / 'run', **options))
    if collapsed:
        runner._init_model_weights()
        runner._has_loaded = True
        with torch.no_grad():
            runner.model.projector.fc1.weight.zero_()
            if runner.model.projector.fc1.bias is not None:
                runner.model.projector.fc1.bias.fill_(1.0)
    runner.train()
    log = log_of(tmp_path / 'run')
    assert ('iteration 4: the embeddings collapse' in log) == collapsed
    assert ('the embeddings collapse' in log) == collapsed
    assert 'iteration 2: the embeddings collapse' not in log


def test_the_record_describes_the_run(textured_folder, tmp_path):
    def listed(text: str, iterations: int):
        (textured_folder / 'list.jsonl').write_text(text)
        return tiny_config(
            textured_folder,
            tmp_path / 'run',
            **{
                'train_dataloader.dataset.ann_file': 'list.jsonl',
                'train_cfg.max_iters': iterations,
            },
        )

    text = ''.join(f'{{"path": "{i}.mp4"}}\n' for i in range(6))
    run(listed(text, 2))
    (file,) = (tmp_path / 'run').glob('*/run.json')
    record = json.loads(file.read_text())
    assert record['seed'] == 0
    assert record['clips_per_optimizer_step'] == 4
    assert record['versions']['torch'] == torch.__version__.split('+')[0]
    (data,) = record['data']
    assert data['samples'] == 6
    assert data['sha256'] == hashlib.sha256(text.encode()).hexdigest()
    assert 'PyTorch' in record['environment']
    head = subprocess.run(
        ['git', 'rev-parse', 'HEAD'], cwd=REPO, capture_output=True, text=True, check=False
    )
    if head.returncode == 0:
        assert record['git'].startswith(head.stdout.strip())

    cfg = listed('{"path": "0.mp4"}\n{"path": "1.mp4"}\n', 3)
    cfg.resume = True
    run(cfg)
    logs = ''.join(log.read_text() for log in (tmp_path / 'run').glob('*/*.log'))
    assert 'the list of videos is not that of the run being resumed' in logs
