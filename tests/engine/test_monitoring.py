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


def poisoned(cfg, hook: Hook):
    runner = build_runner(cfg)
    runner.register_hook(hook)
    return runner


def log_of(work_dir) -> str:
    (file,) = work_dir.glob('*/*.log')
    return file.read_text()


@pytest.mark.parametrize('pixels', [True, False])
def test_a_step_that_is_not_finite_leaves_no_trace(textured_folder, tmp_path, pixels):
    """Weights, momenta, target and running statistics are those of a run without the step."""
    states = []
    for name, poison in (('clean', set()), ('bad', {2})):
        cfg = tiny_config(
            textured_folder,
            tmp_path / name,
            **{
                'train_cfg.max_iters': 3,
                'default_hooks.checkpoint.interval': 1,
                'default_hooks.checkpoint.max_keep_ckpts': 3,
            },
        )
        runner = poisoned(cfg, Poison(poison, pixels))
        runner.train()
        states.append(torch.load(tmp_path / name / 'iter_3.pth', weights_only=True))
    before = torch.load(tmp_path / 'bad' / 'iter_2.pth', weights_only=True)
    clean, bad = states
    for key, value in bad['state_dict'].items():
        if 'num_batches_tracked' not in key:
            assert torch.equal(value, before['state_dict'][key]), key
    assert not torch.equal(
        clean['state_dict']['backbone.conv1.weight'], before['state_dict']['backbone.conv1.weight']
    )
    for state, earlier in zip(
        bad['optimizer']['state'].values(), before['optimizer']['state'].values(), strict=True
    ):
        assert torch.equal(state['exp_avg'], earlier['exp_avg'])
    log = log_of(tmp_path / 'bad')
    assert 'iteration 3 (12 clips drawn): loss or gradient is not finite, step skipped' in log
    assert 'not finite' not in log_of(tmp_path / 'clean')


def test_the_count_in_a_row_starts_anew_after_a_good_step(textured_folder, tmp_path):
    cfg = tiny_config(
        textured_folder,
        tmp_path / 'run',
        **{'train_cfg.max_iters': 7, 'default_hooks.non_finite.max_in_row': 2},
    )
    runner = poisoned(cfg, Poison({1, 2, 4, 5}))
    runner.train()
    (file,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    last = json.loads(file.read_text().splitlines()[-1])
    assert last['skipped_steps'] == 4
    assert runner.model.target_net.steps.item() == 1 + 3


def test_too_many_in_a_row_stop_the_run_and_name_the_way_back(textured_folder, tmp_path):
    cfg = tiny_config(
        textured_folder,
        tmp_path / 'run',
        **{'train_cfg.max_iters': 9, 'default_hooks.non_finite.max_in_row': 2},
    )
    with pytest.raises(FloatingPointError) as error:
        poisoned(cfg, Poison(set(range(4, 9)))).train()
    message = str(error.value)
    assert 'in 3 optimizer steps in a row, the last at iteration 7 (28 clips drawn)' in message
    assert f'--resume {tmp_path}/run/iter_6.pth' in message
    saved = torch.load(tmp_path / 'run' / 'iter_6.pth', weights_only=True)['state_dict']
    assert all(value.isfinite().all() for value in saved.values())


def test_a_bad_micro_batch_spoils_its_whole_step(textured_folder, tmp_path):
    cfg = tiny_config(
        textured_folder,
        tmp_path / 'run',
        **{
            'train_cfg.max_iters': 4,
            'optim_wrapper.accumulative_counts': 2,
            'default_hooks.checkpoint.interval': 2,
            'default_hooks.checkpoint.max_keep_ckpts': 2,
        },
    )
    poisoned(cfg, Poison({2})).train()
    before, after = (
        torch.load(tmp_path / 'run' / f'iter_{i}.pth', weights_only=True)['state_dict']
        for i in (2, 4)
    )
    for key, value in after.items():
        if 'num_batches_tracked' not in key:
            assert torch.equal(value, before[key]), key


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


def test_collapse_is_told(textured_folder, tmp_path):
    """An attention pooling and projector of zero weights: all embeddings are the same."""
    cfg = tiny_config(
        textured_folder,
        tmp_path / 'run',
        **{
            'train_cfg.max_iters': 6,
            'optim_wrapper.optimizer.lr': 1e-12,
            'default_hooks.collapse.begin': 4,
            'default_hooks.collapse.interval': 2,
        },
    )
    runner = build_runner(cfg)
    runner._init_model_weights()
    runner._has_loaded = True
    with torch.no_grad():
        runner.model.projector.fc1.weight.zero_()
        if runner.model.projector.fc1.bias is not None:
            runner.model.projector.fc1.bias.fill_(1.0)
    runner.train()
    log = log_of(tmp_path / 'run')
    assert 'iteration 4: the embeddings collapse' in log
    assert 'iteration 2: the embeddings collapse' not in log


def test_a_run_that_learns_is_not_said_to_collapse(textured_folder, tmp_path):
    options = {'default_hooks.collapse.begin': 2, 'default_hooks.collapse.interval': 2}
    run(tiny_config(textured_folder, tmp_path / 'run', **options))
    assert 'collapse' not in log_of(tmp_path / 'run').replace('CollapseHook', '').split('INFO')[-1]


def test_the_record_says_what_the_run_was(textured_folder, tmp_path):
    (textured_folder / 'list.jsonl').write_text(
        ''.join(f'{{"path": "{i}.mp4"}}\n' for i in range(6))
    )
    cfg = tiny_config(
        textured_folder,
        tmp_path / 'run',
        **{'train_dataloader.dataset.ann_file': 'list.jsonl', 'train_cfg.max_iters': 2},
    )
    run(cfg)
    (file,) = (tmp_path / 'run').glob('*/run.json')
    record = json.loads(file.read_text())
    assert record['seed'] == 0
    assert record['clips_per_optimizer_step'] == 4
    assert record['versions']['torch'] == torch.__version__.split('+')[0]
    (data,) = record['data']
    assert data['samples'] == 6
    list_hash = hashlib.sha256((textured_folder / 'list.jsonl').read_bytes()).hexdigest()
    assert data['sha256'] == list_hash
    assert 'PyTorch' in record['environment']
    head = subprocess.run(
        ['git', 'rev-parse', 'HEAD'], cwd=REPO, capture_output=True, text=True, check=False
    )
    if head.returncode == 0:
        assert record['git'].startswith(head.stdout.strip())

    # Another list on resuming.
    (textured_folder / 'list.jsonl').write_text('{"path": "0.mp4"}\n{"path": "1.mp4"}\n')
    cfg = tiny_config(
        textured_folder,
        tmp_path / 'run',
        **{'train_dataloader.dataset.ann_file': 'list.jsonl', 'train_cfg.max_iters': 3},
    )
    cfg.resume = True
    run(cfg)
    logs = ''.join(log.read_text() for log in (tmp_path / 'run').glob('*/*.log'))
    assert 'the list of videos is not that of the run being resumed' in logs
