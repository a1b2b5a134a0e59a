"""Probes in real runs: right numbers at the right iterations, and no trace in the run."""

import copy
import json
import random
import re

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import VISBACKENDS
from mmengine.visualization import BaseVisBackend

from tests.conftest import REPO
from tests.engine.test_hooks import run, scalars, tiny_config
from tests.engine.test_monitoring import Poison, log_of
from tests.helpers.frame_videos import SIZE, centre, write_frames, write_rows, write_videos
from tests.helpers.image_folders import write_classes
from tests.helpers.processes import run_ranks
from vito_mm.launch import build_runner
from vito_mm.probes.knn import knn_top1
from vito_mm.probes.representation import (
    alignment,
    effective_rank,
    quantiles,
    similarity_counts,
    uniformity,
)

DELAYS = (0.2, 0.0, 1.0)
READING = dict(image_size=SIZE, num_workers=0)
GROUP_NORM = dict(type='GN', num_groups=4)


@pytest.fixture(scope='module')
def manifest(tmp_path_factory):
    """Fifteen videos of three classes; a run only reads them."""
    return write_videos(tmp_path_factory.mktemp('probes') / 'videos')


def probes(manifest, **changes) -> dict:
    """All three probes, every second iteration; ``knn=dict(...)`` etc. change their settings."""
    hooks = dict(
        knn=dict(type='KNNProbeHook', data=str(manifest), k=3, batch_size=5, **READING),
        time=dict(type='TimeRetrievalHook', delays=DELAYS, batch_size=9, **READING),
        similarity=dict(type='RepresentationHook', bins=30),
    )
    every = dict(interval=2)
    return {name: hook | every | changes.get(name, {}) for name, hook in hooks.items()}


def config(manifest, work_dir, hooks: dict, **options) -> Config:
    cfg = tiny_config(
        manifest.parent, work_dir, **{'train_dataloader.dataset.ann_file': str(manifest), **options}
    )
    cfg.default_hooks.update(hooks)
    return cfg


def lines_with(work_dir, name: str) -> dict[int, dict]:
    return {line['step']: line for line in scalars(work_dir) if name in line}


def hook_of(runner, name: str) -> Hook:
    (hook,) = [hook for hook in runner.hooks if type(hook).__name__ == name]
    return hook


class Projections(Hook):
    """What the head was given in each iteration."""

    def __init__(self) -> None:
        self.given = []

    def before_train(self, runner) -> None:
        runner.model.head.register_forward_pre_hook(
            lambda head, given: self.given.append(
                [torch.stack(list(views)).detach().double() for views in given[:2]]
            )
        )


@VISBACKENDS.register_module()
class Notebook(BaseVisBackend):
    """A backend in the place of TensorBoard's."""

    pages = []

    def __init__(self, save_dir) -> None:
        super().__init__(save_dir)
        self.pages.clear()

    def _init_env(self) -> None:
        pass

    @property
    def experiment(self) -> 'Notebook':
        return self

    def add_scalars(self, scalar_dict, step=0, file_path=None, **kwargs) -> None:
        self.pages.append((step, set(scalar_dict)))

    def add_image(self, name, image, step=0, **kwargs) -> None:
        assert image.dtype == np.uint8
        assert image.ndim == 3
        self.pages.append((step, name))


def features64(model, frames) -> torch.Tensor:
    """Average-pooled features of RGB frames, in float64."""
    backbone = copy.deepcopy(model.backbone).double()
    backbone.eval()
    rgb = np.stack(frames).transpose(0, 3, 1, 2).astype(np.float64)
    mean, std = (
        np.array(values).reshape(3, 1, 1)
        for values in ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    )
    with torch.no_grad():
        return backbone(torch.from_numpy((rgb - mean) / std))[-1].mean((2, 3))


def test_all_numbers_are_logged_at_their_iterations_and_are_right(manifest, tmp_path):
    hooks = probes(manifest, knn=dict(linear=True))
    cfg = config(manifest, tmp_path / 'run', hooks, **{'train_cfg.max_iters': 5})
    cfg.visualizer.vis_backends.append(dict(type='Notebook'))
    runner, given = build_runner(cfg), Projections()
    runner.register_hook(given)
    runner.train()

    # Before the first step, every second iteration, and at the end.
    assert list(lines_with(tmp_path / 'run', 'knn_top1')) == [0, 2, 4, 5]
    assert list(lines_with(tmp_path / 'run', 'retrieval_1000ms')) == [0, 2, 4, 5]
    assert list(lines_with(tmp_path / 'run', 'effective_rank')) == [1, 2, 4, 5]
    assert list(lines_with(tmp_path / 'run', 'loss')) == [1, 2, 3, 4, 5]
    log = log_of(tmp_path / 'run')
    assert 'Iter(probe) [4/5]  knn_top1: ' in log
    assert 'KNNProbeHook: 12 images to learn from, 3 to classify, 3 classes' in log
    saved = torch.load(tmp_path / 'run' / 'iter_5.pth')['message_hub']
    assert len(saved['log_scalars']['probe/knn_top1'].data[0]) == 4
    noted = Notebook.pages
    for step in (2, 4, 5):
        assert (step, 'time_retrieval') in noted
        assert (step, 'similarities') in noted
        assert any(page[0] == step and 'linear_top1' in page[1] for page in noted)

    # The weights after the last iteration are those of the last measurement.
    images = hook_of(runner, 'KNNProbeHook').images
    parts = []
    for part, labels in ((images.train, images.train_labels), (images.val, images.val_labels)):
        files = [f'{row["video_path"]}/008.png' for row in part.rows]  # at 1.6 of 3.2 s
        frames = [centre(file)[..., ::-1] for file in files]
        parts += features64(runner.model, frames), labels
    line = lines_with(tmp_path / 'run', 'knn_top1')[5]
    assert line['knn_top1'] == pytest.approx(knn_top1(*parts, k=3))
    assert 0 <= line['linear_top1'] <= 100

    frames = torch.cat([frames for _, frames in hook_of(runner, 'TimeRetrievalHook').batches])
    assert frames.shape == (15, 3, SIZE, SIZE, 3)
    found = features64(runner.model, frames.flatten(0, 1).numpy())
    found = F.normalize(found, dim=1).view(15, 3, -1).numpy()
    line = lines_with(tmp_path / 'run', 'retrieval_1000ms')[5]
    for column, delay in enumerate(sorted(DELAYS)):
        own = (found[:, 0] @ found[:, column].T).argmax(1) == np.arange(15)
        assert line[f'retrieval_{1000 * delay:g}ms'] == pytest.approx(100 * own.mean())
    assert line['retrieval_0ms'] == 100
    assert line['retrieval_1000ms'] < 100

    for step, line in lines_with(tmp_path / 'run', 'effective_rank').items():
        check_projections(line, *given.given[step - 1])

    picture = cv2.imread(str(next((tmp_path / 'run').glob('*/time_retrieval.png'))))
    assert min(picture.shape[:2]) > 200


def check_projections(line: dict, online: torch.Tensor, target: torch.Tensor) -> None:
    """Compare a line of numbers with those of projections (V, N, D) in float64."""
    unit = [F.normalize(views, dim=-1) for views in (online, target)]
    for prefix, views in zip(('', 'target_'), unit, strict=True):
        assert line[f'{prefix}effective_rank'] == pytest.approx(
            effective_rank(views.flatten(0, 1)), rel=1e-4
        )
        for measure in (alignment, uniformity):
            wanted = pytest.approx(measure(views), rel=1e-4)
            assert line[f'{prefix}{measure.__name__}'] == wanted
    views = range(len(online))
    pairs = [(unit[0][i], unit[1][j]) for i in views for j in views if i != j]
    for name, counts in zip(('pos', 'neg'), similarity_counts(pairs, 2000), strict=True):
        for level in (5, 50, 95):
            (expected,) = quantiles(counts, [level / 100])
            assert line[f'similarity_{name}_p{level}'] == pytest.approx(expected, abs=2e-3)


class States(Hook):
    """Generators and modes at the end of each iteration."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.seen.append(
            (
                torch.get_rng_state().tolist(),
                random.getstate(),
                np.random.get_state()[1].tolist(),
                [module.training for module in runner.model.modules()],
            )
        )


def test_a_run_with_probes_ends_bit_exact_as_without(manifest, tmp_path):
    outcomes = []
    # Drop path draws random numbers; one frozen stage stays in evaluation mode.
    options = {'model.backbone.drop_path_rate': 0.5, 'model.backbone.frozen_stages': 1}
    for name, hooks in (
        ('without', {}),
        ('with', probes(manifest, knn=dict(num_workers=1, network='target'))),
    ):
        runner = build_runner(config(manifest, tmp_path / name, hooks, **options))
        states = States()
        runner.register_hook(states)
        runner.train()
        saved = torch.load(tmp_path / name / 'iter_4.pth')
        losses = [line['loss'] for line in scalars(tmp_path / name) if 'loss' in line]
        outcomes.append((saved, states.seen, losses))
        assert 'forward' not in vars(runner.model.head)
    (first, first_states, first_losses), (second, second_states, second_losses) = outcomes
    assert len(lines_with(tmp_path / 'with', 'knn_top1')) == 3
    assert first['state_dict'].keys() == second['state_dict'].keys()
    assert all(torch.equal(v, second['state_dict'][k]) for k, v in first['state_dict'].items())
    for one, other in zip(
        first['optimizer']['state'].values(), second['optimizer']['state'].values(), strict=True
    ):
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert first_states == second_states
    assert first_losses == second_losses


TWO_RANKS = """
import json, sys
from pathlib import Path
from tests.engine.test_probe_hooks import config, run
manifest, work_dir, hooks, options = json.loads(sys.argv[1])
cfg = config(Path(manifest), Path(work_dir), hooks, **options)
cfg.launcher = 'pytorch'
run(cfg)
"""


def test_two_ranks_find_the_numbers_of_one(manifest, tmp_path):
    """Group norm: on CPUs each rank has batch statistics of its own."""
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    rows = [row | dict(path=str(manifest.parent / row['path'])) for row in rows]
    rows.append(dict(path='gone', label=0))
    hooks = probes(write_rows(tmp_path / 'list.jsonl', rows), knn=dict(linear=True))
    options = {
        'model.backbone.norm_cfg': GROUP_NORM,
        'model.projector.norm_cfg': GROUP_NORM,
        'train_cfg.max_iters': 1,
    }
    run(config(manifest, tmp_path / 'one', hooks, **options))
    options['train_dataloader.batch_size'] = 2
    settings = json.dumps([str(manifest), str(tmp_path / 'two'), hooks, options])
    run_ranks(TWO_RANKS, tmp_path, 2, settings)
    for name, step in (('knn_top1', 0), ('retrieval_1000ms', 0), ('effective_rank', 1)):
        one, two = (lines_with(tmp_path / folder, name)[step] for folder in ('one', 'two'))
        for line in (one, two):  # how long it took is no number of the network
            (cost,) = [key for key in line if key.startswith('probe_seconds/')]
            assert line.pop(cost) > 0
        assert two == pytest.approx(one, rel=1e-3, abs=2e-3)
    for folder in ('one', 'two'):
        assert 'skipped 1 unreadable' in log_of(tmp_path / folder)


def test_micro_batches_are_described_as_one_batch(manifest, tmp_path):
    options = {'model.micro_batch_size': 2, 'train_cfg.max_iters': 2}
    hooks = dict(similarity=dict(type='RepresentationHook', interval=2))
    runner = build_runner(config(manifest, tmp_path / 'run', hooks, **options))
    runner.register_hook(given := Projections())
    runner.train()
    lines = lines_with(tmp_path / 'run', 'effective_rank')
    assert list(lines) == [1, 2]
    for step, line in lines.items():
        online, target = given.given[step - 1]
        assert online.shape == (3, 4, 8)
        check_projections(line, online, target)


def test_heads_of_mmpretrain_are_listened_to_as_well(manifest, tmp_path, monkeypatch):
    """BYOL: single views, each with the target projection of the other."""
    from mmpretrain.models.heads import LatentPredictHead

    cfg = config(manifest, tmp_path / 'run', dict(probe=dict(type='RepresentationHook')))
    byol = Config.fromfile(REPO / 'configs/baselines/byol_r50.py').model
    byol.backbone.update(depth=18, stem_channels=16, base_channels=16)
    for part in (byol.neck, byol.head.predictor):
        part.update(in_channels=16, hid_channels=16, out_channels=16)
    byol.neck.in_channels = 128
    cfg.model = byol
    cfg.train_dataloader.dataset.pipeline.sample.num_views = 2
    cfg.train_cfg.max_iters = 1
    given = []
    monkeypatch.setattr(
        LatentPredictHead,
        'loss',
        lambda self, *views, loss=LatentPredictHead.loss: given.append(views) or loss(self, *views),
    )
    run(cfg)
    (line,) = lines_with(tmp_path / 'run', 'effective_rank').values()
    # In the order of the views: the head gets online 0 with target 1, then 1 with 0.
    (online_0, target_1), (online_1, target_0) = given
    views = [(online_0, online_1), (target_0, target_1)]
    check_projections(line, *(torch.stack(pair).detach().double() for pair in views))


def test_videos_that_are_short_or_broken_are_skipped_and_counted(manifest, tmp_path):
    write_frames(tmp_path / 'short', 4, seed=0)
    (tmp_path / 'page.mp4').write_text('<html>404</html>')
    rows = [
        *(dict(path=str(manifest.parent / f'video_{n}'), fps=5) for n in (0, 0, 1, 2)),
        dict(path='short', fps=5),
        dict(path='page.mp4'),
    ]
    listed = write_rows(tmp_path / 'list.jsonl', rows)
    hooks = dict(time=probes(manifest)['time'] | dict(data=str(listed), layer='neck', prefix='my_'))
    run(config(manifest, tmp_path / 'run', hooks, **{'train_cfg.max_iters': 1}))
    log = log_of(tmp_path / 'run')
    assert 'TimeRetrievalHook skips 1 too short and 1 unreadable (' in log
    assert f'TimeRetrievalHook: 3 videos of {listed}' in log  # a video counts once
    line = lines_with(tmp_path / 'run', 'my_retrieval_1000ms')[1]
    found = line['my_retrieval_1000ms']
    assert min(abs(found - share) for share in (0, 100 / 3, 200 / 3, 100)) < 1e-9


def test_a_resumed_run_goes_on_with_its_curve(manifest, tmp_path):
    hooks = dict(time=probes(manifest)['time'])
    run(config(manifest, tmp_path / 'run', hooks, **{'train_cfg.max_iters': 2}))
    cfg = config(manifest, tmp_path / 'run', hooks)
    cfg.resume = True
    runner = run(cfg)
    record = runner.message_hub.runtime_info['time_retrieval']
    assert list(record['values']) == [0, 2, 4]
    files = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    # None a second time.
    assert sorted(line['step'] for line in lines if 'retrieval_1000ms' in line) == [0, 2, 4]


def test_what_cannot_be_measured_does_not_end_a_run(manifest, tmp_path):
    hooks = probes(manifest)
    runner = build_runner(config(manifest, tmp_path / 'run', hooks))
    runner.register_hook(Poison({1}))
    runner.train()
    assert 'iteration 2: RepresentationHook: the projections are not finite' in log_of(
        tmp_path / 'run'
    )
    assert list(lines_with(tmp_path / 'run', 'effective_rank')) == [1, 4]


@pytest.mark.parametrize(
    ('hook', 'message'),
    [
        (dict(type='KNNProbeHook'), r'KNNProbeHook\.data is empty: give a folder'),
        (dict(type='KNNProbeHook', data='x', interval=0), r'KNNProbeHook\.interval must be'),
        (dict(type='KNNProbeHook', data='x', prefix='a@'), r"KNNProbeHook\.prefix .* 'a@'"),
        (dict(type='KNNProbeHook', data='x', k=0), r'KNNProbeHook\.k must be positive'),
        (dict(type='KNNProbeHook', data='x', max_images=0), r'KNNProbeHook\.max_images'),
        (dict(type='KNNProbeHook', data='x', network='both'), r'KNNProbeHook\.network .*both'),
        (dict(type='KNNProbeHook', data='no/such'), r'KNNProbeHook\.data: there is no folder no/s'),
        (dict(type='KNNProbeHook', data='no.csv'), r"KNNProbeHook\.data: there is no manifest 'no"),
        (dict(type='RepresentationHook', bins=0), r'RepresentationHook\.bins must be positive'),
        (dict(type='TimeRetrievalHook', delays=(-1,)), r'TimeRetrievalHook\.delays must be'),
        (dict(type='TimeRetrievalHook', delays=(1, 1.0001)), r'TimeRetrievalHook\.delays must be'),
        (dict(type='TimeRetrievalHook', num_videos=1), r'TimeRetrievalHook\.num_videos'),
        (dict(type='TimeRetrievalHook', layer='head'), r'TimeRetrievalHook\.layer .*head'),
        (dict(type='TimeRetrievalHook', data='no/such'), r'TimeRetrievalHook\.data: .*no/such'),
        (
            dict(type='TimeRetrievalHook', delays=(9,), num_workers=0),
            r'TimeRetrievalHook\.data: 0 of 15 videos .* as long as the longest delay, 9 s',
        ),
    ],
)
def test_settings_that_make_no_sense_are_named_before_the_first_step(
    manifest, tmp_path, hook, message
):
    with pytest.raises(ValueError, match=message):
        run(config(manifest, tmp_path / 'run', dict(probe=hook)))
    assert not list(tmp_path.glob('run/*.pth'))


def test_the_config_of_the_page_switches_all_probes_on(manifest, tmp_path):
    page = (REPO / 'docs/watch_a_run.md').read_text()
    block = re.search(r'^```python\n(.*?)^```', page, re.DOTALL | re.MULTILINE)[1]
    (tmp_path / 'mine.py').write_text(block)
    wanted = Config.fromfile(tmp_path / 'mine.py')
    assert wanted.model.backbone.depth == 50
    write_classes(tmp_path / 'images', ['dark', 'light'])
    cfg = config(manifest, tmp_path / 'run', {}, **{'train_cfg.max_iters': 1})
    cfg.custom_hooks = wanted.custom_hooks
    cfg.merge_from_dict({'custom_hooks.0.data': str(tmp_path / 'images')})
    for number in (0, 1):
        cfg.custom_hooks[number].update(READING)
    run(cfg)
    logged = set().union(*scalars(tmp_path / 'run'))
    assert {'knn_top1', 'retrieval_2400ms', 'effective_rank', 'similarity_neg_p95'} <= logged
