"""Names that a run logs, by the rules of the loggers, and its log in the tools of OpenMMLab."""

import importlib.util
import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import matplotlib.pyplot as plt
import pytest

from tests.conftest import with_original_mim
from tests.engine.test_monitoring import Poison
from tests.engine.test_probe_hooks import Notebook, config, hook_of, probes
from tests.helpers.frame_videos import SIZE, write_rows, write_videos
from tests.helpers.processes import shell
from vito_mm.launch import build_runner

RULES = {
    # mlflow/utils/validation.py, _VALID_PARAM_AND_METRIC_NAMES
    'MLflow': r'[/\w.\- :]*',
    # tensorboard, and torch.utils.tensorboard before it took any name
    'TensorBoard': r'[-/\w.]+',
    # https://docs.wandb.ai/guides/track/log, "Metric naming constraints"; / makes sections
    'W&B': r'[_a-zA-Z][_a-zA-Z0-9]*(/[_a-zA-Z][_a-zA-Z0-9]*)*',
}


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A run of four steps with everything on that logs: its folder and the names."""
    folder = tmp_path_factory.mktemp('names')
    manifest = write_videos(folder / 'videos')
    rows = [dict(path=str(path)) for path in sorted(manifest.parent.glob('*/'))]
    (folder / 'broken.mp4').write_bytes(b'no video')
    listed = write_rows(
        folder / 'list.jsonl', [*rows, *[dict(path=str(folder / 'broken.mp4'))] * 9]
    )
    hooks = probes(manifest, knn=dict(linear=True), time=dict(delays=(0.2, 0, 1 / 3)))
    hooks['attention'] = dict(type='AttentionHook', videos=str(manifest), size=SIZE, num_clips=2)
    cfg = config(listed, folder / 'run', hooks)
    cfg.visualizer.vis_backends.append(dict(type='Notebook'))
    runner = build_runner(cfg)
    runner.register_hook(Poison({2}))
    runner.train()
    assert hook_of(runner, 'SkippedVideosHook').num_skipped
    assert hook_of(runner, 'NonFiniteHook').num_skipped == 1
    scalars = {name for _, page in Notebook.pages if isinstance(page, set) for name in page}
    pictures = {page for _, page in Notebook.pages if isinstance(page, str)}
    return folder, scalars, pictures


def test_everything_is_logged(trained):
    _, scalars, pictures = trained
    assert {
        *('loss', 'pair_nll', 'lr', 'embedding_std', 'skipped_videos', 'skipped_steps'),
        *('knn_top1', 'linear_top1', 'retrieval_0ms', 'retrieval_333ms', 'effective_rank'),
        *('target_alignment', 'similarity_neg_p95', 'probe_seconds/KNNProbeHook'),
    } <= scalars
    assert pictures == {'time_retrieval', 'similarities', 'attention_iter'}


@pytest.mark.parametrize('logger', RULES)
def test_every_name_is_one_that_loggers_take(trained, logger):
    _, scalars, pictures = trained
    wrong = [name for name in scalars | pictures if not re.fullmatch(RULES[logger], name, re.ASCII)]
    assert not wrong


def test_mlflow_takes_every_name(trained):
    validation = pytest.importorskip('mlflow.utils.validation')
    for name in trained[1]:
        validation._validate_metric_name(name)


def test_tensorboard_takes_every_name(trained, tmp_path):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        for name in trained[1]:
            writer.add_scalar(name, 1.0, 0)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert set(events.Tags()['scalars']) == trained[1]


ANALYSES = {'mmdet': ['plot_curve'], 'mmseg': [], 'mmpretrain': ['plot_curve']}
"""Words before the log."""


def log_of(folder: Path) -> Path:
    (log,) = (folder / 'run').glob('*/vis_data/2*.json')
    return log


@pytest.mark.parametrize('library', ANALYSES)
def test_analyze_logs_plots_the_training_of_a_run_with_probes(
    trained, library, tmp_path, monkeypatch
):
    """Next to a seaborn that sets no style, where none is installed."""
    if importlib.util.find_spec('seaborn') is None:
        seaborn = SimpleNamespace(set_style=lambda style: None)
        monkeypatch.setitem(sys.modules, 'seaborn', seaborn)
    tools = Path(importlib.util.find_spec(library).origin).parent / '.mim/tools'
    words = *ANALYSES[library], log_of(trained[0]), '--keys', 'loss', 'similarity_pos'
    out = tmp_path / 'curve.png'
    monkeypatch.setattr(sys, 'argv', ['analyze_logs.py', *map(str, words), '--out', str(out)])
    plt.switch_backend('agg')
    with plt.rc_context():
        runpy.run_path(str(tools / 'analysis_tools/analyze_logs.py'), run_name='__main__')
    plt.close('all')
    assert cv2.imread(str(out)) is not None


@pytest.mark.slow
@with_original_mim
def test_mim_measures_the_time_of_training(trained):
    words = 'mmpretrain', 'analyze_logs', 'cal_train_time', log_of(trained[0])
    done = shell(sys.executable, '-m', 'mim', 'run', *words)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'average iter time' in done.stdout
