"""The command that draws the attention of a checkpoint."""

import itertools
import time

import cv2
import numpy as np
import pytest
import torch
import torchvision

from tests.conftest import REPO, write_video
from tests.helpers.processes import run_tool, shell, without_deprecations
from tests.helpers.tiny_vito import save, tiny_vito
from vito_mm.videos import decode_frames

TOOL = REPO / 'tools/show_attention.py'


@pytest.fixture
def checkpoint(tmp_path):
    return save(tmp_path / 'iter_7.pth', *tiny_vito())


def test_the_command_writes_a_strip(tmp_path, checkpoint):
    videos = [write_video(tmp_path / name, texture=1) for name in ('a.mp4', 'b \udcff.mp4')]
    out = tmp_path / 'new' / 'strip.png'
    done = shell(TOOL, checkpoint, *videos, '--out', out, '--size', 64, '--frames', 3)
    assert (done.returncode, without_deprecations(done.stderr)) == (0, '')
    assert done.stdout == f'frames: 6, videos: 2\nwritten to {out}\n'
    assert cv2.imread(str(out)).shape[1] > 6 * 160


def test_a_name_ending_in_mp4_gives_a_video(tmp_path, checkpoint, monkeypatch, capsys):
    video = write_video(tmp_path / 'a.mp4', num_frames=80, texture=1)
    out = tmp_path / 'masks.mp4'
    part = ('--start', 1, '--end', 3, '--fps', 10)
    run_tool(monkeypatch, TOOL.name, checkpoint, video, '--out', out, '--size', 64, *part)
    assert 'frames: 20, 10 a second\n2.00 s from 1.00 to 3.00 s\n' in capsys.readouterr().out
    frames, _ = decode_frames(out, lambda seconds: np.array([0, seconds]))
    assert frames[0].shape[1] > 3 * 160
    _, end = decode_frames(out, lambda seconds: np.array([seconds]))
    assert end == pytest.approx(1.9, abs=0.01)


def test_the_target_network_looks_elsewhere(tmp_path, monkeypatch):
    model, text = tiny_vito()
    with torch.no_grad():
        for parameter in model.target_net.parameters():
            parameter.mul_(1.3)
    checkpoint = save(tmp_path / 'iter_7.pth', model, text)
    video = write_video(tmp_path / 'a.mp4', texture=1)
    for which in ('online', 'target'):
        out = ('--out', tmp_path / f'{which}.png', '--which', which)
        run_tool(monkeypatch, TOOL.name, checkpoint, video, *out, '--size', 64, '--frames', 1)
    online, target = (cv2.imread(str(tmp_path / f'{x}.png')) for x in ('online', 'target'))
    assert (online[250:400] != target[250:400]).mean() > 0.05


@pytest.mark.parametrize(
    ('checkpoint_name', 'video', 'options', 'message'),
    [
        ('gone.pth', 'a.mp4', (), 'There is no checkpoint'),
        ('resnet.pth', 'a.mp4', (), 'has no attention network'),
        ('iter_7.pth', 'gone.mp4', (), 'gone.mp4'),
        ('iter_7.pth', 'empty.mp4', (), 'is empty'),
        ('iter_7.pth', 'a.mp4', ('--start', 9), 'is not within its 4.00 s'),
        ('iter_7.pth', 'a.mp4', ('--config', 'gone.py'), 'gone.py'),
        ('iter_7.pth', 'a.mp4', ('--device', 'nowhere'), "device 'nowhere' cannot be used"),
    ],
)
def test_errors_are_told_without_a_traceback(
    tmp_path, checkpoint, monkeypatch, checkpoint_name, video, options, message
):
    write_video(tmp_path / 'a.mp4')
    (tmp_path / 'empty.mp4').touch()
    if checkpoint_name == 'resnet.pth':
        torch.save(torchvision.models.resnet18().state_dict(), tmp_path / 'resnet.pth')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        run_tool(monkeypatch, TOOL.name, checkpoint_name, video, *options)
    assert message in str(error.value)
    assert not list(tmp_path.glob('*.png'))


def test_some_videos_of_a_folder(tmp_path, checkpoint, monkeypatch, capsys):
    for name in 'ab':
        write_video(tmp_path / 'videos' / f'{name}.mp4', num_frames=20, texture=ord(name))
    (tmp_path / 'videos' / 'empty.mp4').touch()
    out = ('--out', tmp_path / 'strip.png', '--size', 64, '--frames', 2)
    run_tool(monkeypatch, TOOL.name, checkpoint, '--videos', tmp_path / 'videos', *out)
    told = capsys.readouterr()
    assert 'frames: 4, videos: 2' in told.out
    assert 'empty.mp4' in told.err
    for name in 'ab':
        (tmp_path / 'videos' / f'{name}.mp4').unlink()
    with pytest.raises(SystemExit, match='none of 1 videos'):
        run_tool(monkeypatch, TOOL.name, checkpoint, '--videos', tmp_path / 'videos', *out)


@pytest.mark.parametrize('out', ['strip.png', 'masks.mp4'])
def test_a_video_that_takes_too_long_is_given_up(tmp_path, checkpoint, monkeypatch, out):
    video, now = write_video(tmp_path / 'a.mp4'), time.monotonic()
    # Each look at the clock is half a minute after the last.
    monkeypatch.setattr(time, 'monotonic', (now + 31.0 * n for n in itertools.count()).__next__)
    with pytest.raises(SystemExit, match=r'a\.mp4.*longer than the time limit'):
        run_tool(monkeypatch, TOOL.name, checkpoint, video, '--out', tmp_path / out, '--size', 64)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('a.mp4', '--out', 'strip.jpg'), 'must end in .png or .mp4'),
        (('a.mp4', 'b.mp4', '--out', 'masks.mp4'), 'an MP4 shows one video, got 2'),
        ((), 'by --videos'),
        (('a.mp4', '--videos', 'folder'), 'by --videos'),
        (('--videos', 'folder', '--out', 'masks.mp4'), 'an MP4 shows one video, got folder'),
        (('a.mp4', '--frames', 0), '--frames: must be 1 or more'),
        (('a.mp4', '--size', 16), '--size: must be 32 or more'),
    ],
)
def test_options_that_make_no_sense_are_refused(monkeypatch, capsys, options, message):
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, TOOL.name, 'iter_7.pth', *options)
    assert message in capsys.readouterr().err
