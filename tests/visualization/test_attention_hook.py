"""Pictures of attention in real runs, which go on as if there were none."""

import json

import cv2
import pytest
import torch

from tests.engine.test_hooks import run, tiny_config

SETTINGS = dict(type='AttentionHook', num_clips=2, num_views=2, size=64)


def run_with(work_dir, video_folder, hook=None, **options):
    cfg = tiny_config(video_folder, work_dir, **options)
    if hook is not None:
        cfg.default_hooks.attention = dict(SETTINGS, **hook)
    return run(cfg)


def pictures(work_dir) -> dict[int, tuple]:
    """Shapes of the strips by iteration."""
    found = work_dir.glob('*/vis_data/vis_image/attention_iter_*.png')
    return {int(file.stem.split('_')[-1]): cv2.imread(str(file)).shape for file in found}


def test_a_strip_a_checkpoint_and_the_same_run_bit_exact(textured_folder, tmp_path):
    options = {'train_cfg.max_iters': 3}
    shown = run_with(tmp_path / 'shown', textured_folder, {}, **options)
    plain = run_with(tmp_path / 'plain', textured_folder, **options)
    assert set(pictures(tmp_path / 'shown')) == {2, 3}
    assert len(set(pictures(tmp_path / 'shown').values())) == 1
    assert shown.model.training == plain.model.training
    ends = []
    for name in ('shown', 'plain'):
        saved = torch.load(tmp_path / name / 'iter_3.pth')
        (log,) = (tmp_path / name).glob('*/vis_data/scalars.json')
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        losses = [(line['step'], line['loss'], line['embedding_std']) for line in lines]
        ends.append((saved['state_dict'], saved['optimizer']['state'], losses))
    torch.testing.assert_close(*ends, rtol=0, atol=0)


def test_the_clips_are_those_of_the_users_videos_and_bad_ones_are_told(
    textured_folder, video_folder, tmp_path
):
    (textured_folder / '0.mp4').write_bytes(b'')
    hook = dict(videos=str(textured_folder), num_clips=8, interval=3)
    runner = run_with(tmp_path / 'run', video_folder, hook)
    assert set(pictures(tmp_path / 'run')) == {3, 4}
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert 'AttentionHook: cannot read video' in log.read_text()
    (hook,) = (hook for hook in runner.hooks if type(hook).__name__ == 'AttentionHook')
    assert [clip.name for clip in hook.clips] == [f'{i}.mp4' for i in range(1, 8)]


def test_a_model_without_attention_is_trained_without_pictures(video_folder, tmp_path):
    options = {'model.neck.pooling': 'average', 'train_cfg.max_iters': 2}
    run_with(tmp_path / 'run', video_folder, {}, **options)
    assert not pictures(tmp_path / 'run')
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert 'the model has no attention pooling' in log.read_text()


@pytest.mark.parametrize(
    ('hook', 'error', 'message'),
    [
        (dict(num_clips=0), ValueError, r'AttentionHook\.num_clips must be at least 1, got 0'),
        (dict(segment=0), ValueError, r'AttentionHook\.segment'),
        (dict(videos='/nowhere'), FileNotFoundError, 'no file or folder'),
        (dict(videos=['/nowhere.mp4']), RuntimeError, 'none of 1 videos'),
    ],
)
def test_settings_that_make_no_sense_are_told_before_the_first_step(
    video_folder, tmp_path, hook, error, message
):
    with pytest.raises(error, match=message):
        run_with(tmp_path / 'run', video_folder, hook)
    assert not list(tmp_path.glob('run/*.pth'))
