"""One description of a file for training, preparation, copies, curation and every decoder."""

import av
import numpy as np
import pytest

from tests.helpers.video_kinds import KINDS
from tests.helpers.with_torchcodec import run_python
from vito_mm.videos import decode_frames
from vito_mm.videos.backends import pyav_backend
from vito_mm.videos.frames import View, first
from vito_mm.videos.prepare.integrity import inspect_video
from vito_mm.videos.prepare.reencoding import Encoding, reencode_video


@pytest.mark.parametrize('backend', ['pyav', 'decord'])
@pytest.mark.parametrize('name', KINDS)
def test_every_decoder_gives_the_frames_on_screen(kinds, name, backend):
    KINDS[name].check(kinds[name], backend)


def test_torchcodec_gives_them_too(kinds, tmp_path):
    folder = next(iter(kinds.values())).parent
    module = ('-m', 'tests.helpers.video_kinds')
    assert run_python('torchcodec', tmp_path / 'ffmpeg', *module, folder, 'torchcodec') == ''


@pytest.mark.parametrize('name', KINDS)
def test_a_long_file_is_read_alike(kinds, name, monkeypatch):
    """With seeks, or read again, instead of being kept in memory."""
    monkeypatch.setattr(pyav_backend, '_IN_MEMORY', 0)
    KINDS[name].check(kinds[name])


@pytest.mark.parametrize('name', KINDS)
def test_inspection_tells_what_decoding_finds(kinds, name):
    kind = KINDS[name]
    for thorough in (False, True):
        row = inspect_video(kinds[name], thorough)
        assert row['verdict'] == 'ok', row
        assert row['seconds'] == pytest.approx(kind.duration, abs=2e-3)
        assert row['num_frames'] == len(kind.times)
        assert row['fps'] == pytest.approx(len(kind.times) / kind.duration, rel=2e-3)
        assert (row['width'], row['height']) == kind.size
        assert row.items() >= kind.row.items()
        assert kind.notes in row.get('notes', '')
        assert bool(kind.notes) == ('notes' in row), row


@pytest.mark.parametrize('name', KINDS)
def test_a_copy_has_the_same_frames_at_the_same_times(kinds, name, tmp_path):
    kind = KINDS[name]
    row = reencode_video(kinds[name], tmp_path / 'x.mp4', Encoding(preset='ultrafast', crf=10))
    assert (row['verdict'], row['pix_fmt'], row['rotation']) == ('ok', 'yuv420p', 0), row
    assert row['num_frames'] == len(kind.times)
    assert row['seconds'] == pytest.approx(kind.duration, abs=2e-3)
    for backend in ('pyav', 'decord'):
        size = tuple(side // 2 * 2 for side in kind.size)
        kind.check(tmp_path / 'x.mp4', backend, size)


@pytest.mark.parametrize('name', KINDS)
def test_curation_sees_the_same_first_frames(kinds, name):
    kind = KINDS[name]
    frames = first(dict(path=kinds[name]), 5, View(48, 48, squash=True))
    assert kind.found(frames) == kind.indices[:5].tolist()


@pytest.mark.parametrize('ending', ['mp4', 'mkv'])
@pytest.mark.parametrize('matrix', [1, 5, 9], ids=['BT.709', 'BT.601', 'BT.2020'])
@pytest.mark.parametrize('full', [False, True], ids=['limited', 'full'])
def test_range_and_matrix_of_colours(tmp_path, ending, matrix, full):
    """Against the equations of ITU-T H.273, for all decoders and a copy."""
    red, blue = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}[matrix]
    y, u, v = 120, 90, 170
    path = tmp_path / f'x.{ending}'
    with av.open(str(path), 'w') as container:
        options = {'crf': '0', 'preset': 'ultrafast'}
        stream = container.add_stream('libx264', rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = 2 if full else 1
        planes = [np.full((48, 64), y), np.full((12, 64), u), np.full((12, 64), v)]
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(np.concatenate(planes).astype(np.uint8), 'yuv420p')
            frame.colorspace, frame.color_range = matrix, 2 if full else 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    light = y / 255 if full else (y - 16) / 219
    pb, pr = ((value - 128) / (255 if full else 224) for value in (u, v))
    r, b = light + 2 * (1 - red) * pr, light + 2 * (1 - blue) * pb
    expected = 255 * np.array([r, (light - red * r - blue * b) / (1 - red - blue), b])
    reencode_video(path, tmp_path / 'copy.mp4', Encoding(crf=0))
    for file in (path, tmp_path / 'copy.mp4'):
        for backend in ('pyav', 'decord'):
            frames, _ = decode_frames(file, lambda d: np.array([0.2]), backend)
            found = frames[0].reshape(-1, 3).mean(axis=0)
            tolerance = 3 if file == path else 6  # two roundings more
            np.testing.assert_allclose(found, expected, atol=tolerance, err_msg=backend)


def test_files_without_key_frames_are_not_given_to_others(kinds):
    from vito_mm.videos.backends.plain import plain_timeline

    codecs = ('h264', 'vp8', 'vp9', 'hevc', 'mpeg4')
    assert plain_timeline(str(kinds['intra refresh, no key frames']), codecs) is None
    assert len(plain_timeline(str(kinds['B-frames']), codecs)) == 100
