"""The best checkpoint by a probe: MMEngine's `save_best`, of weights that were measured."""

import contextlib
import json

import pytest
import torch
from mmengine.hooks import Hook

from tests.engine.test_hooks import run, tiny_config
from tests.engine.test_probe_hooks import READING, config, lines_with
from tests.helpers.frame_videos import write_videos
from tests.helpers.processes import run_ranks, run_tool
from vito_mm.engine.hooks.probe_hook import ProbeHook
from vito_mm.launch import build_runner
from vito_mm.registry import HOOKS


@HOOKS.register_module()
class Scripted(ProbeHook):
    """A probe whose numbers, one a measurement, are given; 'stop' ends the run."""

    def __init__(self, script: list, name: str = 'score', **kwargs) -> None:
        super().__init__(interval=1, begin=0 in dict(script), **kwargs)
        self.script, self.name = dict(script), name

    def measure(self, runner, step: int) -> tuple[dict, dict]:
        value = self.script[step]
        if value == 'stop':
            raise KeyboardInterrupt(value)
        return {self.name: value}, {}

    def _is_time(self, runner) -> bool:
        return runner.iter + 1 in self.script


def scripted(video_folder, work_dir, *scripts: dict, save_best='score', **options):
    checkpoint = dict(save_best=save_best, interval=2, **{'rule': 'greater', **options})
    cfg = tiny_config(video_folder, work_dir)
    cfg.default_hooks.checkpoint.update(checkpoint)
    cfg.custom_hooks = [
        dict(script, type='vito_mm.Scripted', script=list(script['script'].items()))
        for script in scripts
    ]
    return cfg


def best_of(folder) -> list[str]:
    assert not list(folder.glob('*.tmp'))
    return sorted(file.name for file in folder.glob('best_*'))


class Weights(Hook):
    """The backbone's first weights after each iteration."""

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self.seen = {}

    def before_train(self, runner) -> None:
        self.seen[0] = runner.model.backbone.conv1.weight.detach().clone()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.seen[runner.iter + 1] = runner.model.backbone.conv1.weight.detach().clone()


def test_the_best_file_holds_the_weights_that_were_probed(tmp_path, monkeypatch):
    manifest = write_videos(tmp_path / 'videos')
    # Names of metrics belong to the probes.
    hooks = dict(knn=dict(type='KNNProbeHook', data=str(manifest), k=3, interval=1, **READING))
    cfg = config(manifest, tmp_path / 'run', hooks)
    cfg.default_hooks.checkpoint.update(save_best='auto', rule='greater')
    run(cfg)
    (best,) = best_of(tmp_path / 'run')
    name, _, step = best.removeprefix('best_').removesuffix('.pth').rpartition('_iter_')
    logged = {at: line[name] for at, line in lines_with(tmp_path / 'run', name).items()}
    assert list(logged) == [0, 1, 2, 3, 4]
    assert logged[int(step)] == max(logged.values())

    out = tmp_path / 'knn.json'
    options = dict(
        data=manifest,
        k=3,
        image_size=READING['image_size'],
        workers=0,
        out=out,
        work_dir=tmp_path / 'probe',
    )
    words = [word for k, v in options.items() for word in (f'--{k.replace("_", "-")}', v)]
    run_tool(monkeypatch, 'probe.py', 'knn', tmp_path / 'run' / best, *words)
    (found,) = json.loads(out.read_text())['results']
    assert found['top-1'] == pytest.approx(logged[int(step)])


def test_a_better_one_takes_the_place_of_the_older(video_folder, tmp_path):
    script = {0: 1.0, 1: 3.0, 2: 3.0, 3: float('nan'), 4: 2.0}
    runner = build_runner(scripted(video_folder, tmp_path / 'run', dict(script=script)))
    runner.register_hook(weights := Weights())
    runner.train()
    assert best_of(tmp_path / 'run') == ['best_score_iter_1.pth']
    best = torch.load(tmp_path / 'run/best_score_iter_1.pth', weights_only=True)
    assert torch.equal(best['state_dict']['backbone.conv1.weight'], weights.seen[1])
    assert best['meta']['iter'] == 1
    assert best['meta']['preprocessing']['channel_order'] == 'rgb'
    assert 'optimizer' not in best
    known = torch.load(tmp_path / 'run/iter_4.pth')['message_hub']['runtime_info']
    assert known['best_score'] == 3.0
    assert known['best_ckpt'] == str(tmp_path / 'run/best_score_iter_1.pth')


def test_the_weights_of_the_start_can_be_the_best(video_folder, tmp_path):
    script = dict(script={0: 1.0, 2: 2.0}, prefix='my_')
    cfg = scripted(video_folder, tmp_path / 'run', script, save_best='my_score', rule='less')
    runner = build_runner(cfg)
    runner.register_hook(weights := Weights())
    runner.train()
    assert best_of(tmp_path / 'run') == ['best_my_score_iter_0.pth']
    best = torch.load(tmp_path / 'run/best_my_score_iter_0.pth')['state_dict']
    assert torch.equal(best['backbone.conv1.weight'], weights.seen[0])


def test_a_resumed_run_knows_the_best_so_far(video_folder, tmp_path):
    """The run is stopped after a best one of which the last checkpoint knows nothing."""
    first = dict(script={0: 1.0, 1: 5.0, 3: 7.0, 4: 'stop'})
    with pytest.raises(KeyboardInterrupt):
        run(scripted(video_folder, tmp_path / 'run', first))
    assert best_of(tmp_path / 'run') == ['best_score_iter_3.pth']
    for script, expected in (
        ({3: 4.0, 4: 'stop'}, 'best_score_iter_3.pth'),  # 5 of iteration 1 is not surpassed
        ({3: 4.0, 4: 6.0}, 'best_score_iter_4.pth'),
    ):
        cfg = scripted(video_folder, tmp_path / 'run', dict(script=script))
        cfg.resume = True
        with contextlib.suppress(KeyboardInterrupt):
            run(cfg)
        assert best_of(tmp_path / 'run') == [expected]


def test_several_metrics_of_several_probes(video_folder, tmp_path):
    scripts = (
        dict(script={0: 1.0, 2: 2.0, 4: 1.5}, name='group/score'),
        dict(script={1: 1.0, 3: 0.5}, name='error'),
    )
    best = dict(save_best=['group/score', 'error'], rule=['greater', 'less'])
    run(scripted(video_folder, tmp_path / 'run', *scripts, **best))
    assert best_of(tmp_path / 'run') == ['best_error_iter_3.pth', 'best_group_score_iter_2.pth']


def test_what_save_best_names_has_to_be_logged(video_folder, tmp_path):
    with pytest.raises(ValueError, match=r'neither probes nor validation'):
        run(scripted(video_folder, tmp_path / 'none'))
    scripts = (dict(script={0: 1.0, 2: 1.0}), dict(script={1: 1.0, 2: 1.0}, name='error'))
    with pytest.raises(ValueError, match=r"'errors' is no metric .*'error'.* score, error$"):
        run(scripted(video_folder, tmp_path / 'run', *scripts, save_best='errors'))
    assert not list((tmp_path / 'run').glob('*.pth'))


def test_a_full_disk_leaves_the_best_before(video_folder, tmp_path, monkeypatch):
    from vito_mm.engine.hooks import atomic_checkpoint_hook

    def rename(source, target, rename=atomic_checkpoint_hook.rename_durably) -> None:
        if target.name == 'best_score_iter_2.pth':
            raise OSError(28, 'No space left on device')
        rename(source, target)

    monkeypatch.setattr(atomic_checkpoint_hook, 'rename_durably', rename)
    with pytest.raises(RuntimeError, match=r'best_score_iter_2\.pth: .*No space'):
        run(scripted(video_folder, tmp_path / 'run', dict(script={0: 1.0, 2: 2.0})))
    assert best_of(tmp_path / 'run') == ['best_score_iter_0.pth']


TWO_RANKS = """
import json, sys
from pathlib import Path
from tests.engine.test_save_best import run, scripted
folder, work_dir, script, save_best = json.loads(sys.argv[1])
cfg = scripted(Path(folder), Path(work_dir), dict(script=dict(script)), save_best=save_best)
cfg.train_dataloader.batch_size = 2
cfg.launcher = 'pytorch'
try:
    run(cfg)
except ValueError as error:
    assert 'is no metric' in str(error)
    assert save_best == 'other'
else:
    assert save_best == 'score'
"""


@pytest.mark.slow
@pytest.mark.parametrize('save_best', ['score', 'other'])
def test_two_ranks_agree(video_folder, tmp_path, save_best):
    script = [(0, 1.0), (1, 2.0), (4, 1.0)]
    settings = json.dumps([str(video_folder), str(tmp_path / 'run'), script, save_best])
    run_ranks(TWO_RANKS, tmp_path, 2, settings)
    found = ['best_score_iter_1.pth'] if save_best == 'score' else []
    assert best_of(tmp_path / 'run') == found
