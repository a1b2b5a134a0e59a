"""One description of a file for training, preparation, copies, curation and every decoder."""

from pathlib import Path

import av
import numpy as np
import pytest

from tests.conftest import frame_index
from tests.helpers.odd_videos import ODD
from tests.helpers.video_layouts import LAYOUTS, NO_KEY_FRAMES, frame_times
from vito_mm.videos import decode_frames
from vito_mm.videos.backends import pyav_backend
from vito_mm.videos.frames import View, first
from vito_mm.videos.prepare.integrity import inspect_video
from vito_mm.videos.prepare.reencoding import Encoding, reencode_video


def decoded(path: Path, times, backend: str = 'pyav'):
    """Frames, when they begin, and the duration."""
    seen = []
    frames, begins = decode_frames(path, lambda d: seen.append(d) or np.asarray(times), backend)
    return frames, begins, seen[0]


def wanted_of(name: str) -> np.ndarray:
    odd = ODD[name]
    drawn = np.random.default_rng(0).uniform(0, odd.duration, 12)
    return np.concatenate([[0.0, odd.duration + 5], odd.times[-2:], odd.times[:2], drawn])


def check(name: str, path: Path, backend: str = 'pyav', size: tuple | None = None) -> None:
    odd, wanted = ODD[name], wanted_of(name)
    frames, begins, duration = decoded(path, wanted, backend)
    assert odd.found(frames) == odd.on_screen(wanted).tolist()
    position = np.searchsorted(odd.times, wanted + 1e-4, side='right') - 1
    np.testing.assert_allclose(begins, odd.times[position], atol=2e-3)
    assert duration == pytest.approx(odd.duration, abs=2e-3)
    assert {frame.shape[1::-1] for frame in frames} == {size or odd.size}


@pytest.mark.parametrize('backend', ['pyav', 'decord'])
@pytest.mark.parametrize('name', ODD)
def test_every_decoder_gives_the_frames_on_screen(odd_files, name, backend):
    check(name, odd_files[name], backend)


@pytest.mark.parametrize('name', ODD)
def test_a_long_file_is_read_alike(odd_files, name, monkeypatch):
    """With seeks, or read again, instead of being kept in memory."""
    monkeypatch.setattr(pyav_backend, '_IN_MEMORY', 0)
    check(name, odd_files[name])


@pytest.mark.parametrize('name', ODD)
def test_inspection_tells_what_decoding_finds(odd_files, name):
    odd = ODD[name]
    for thorough in (False, True):
        row = inspect_video(odd_files[name], thorough)
        assert row['verdict'] == 'ok', row
        assert row['seconds'] == pytest.approx(odd.duration, abs=2e-3)
        assert row['num_frames'] == len(odd.times)
        assert row['fps'] == pytest.approx(len(odd.times) / odd.duration, rel=2e-3)
        assert (row['width'], row['height']) == odd.size
        assert odd.notes in row.get('notes', '')
        assert bool(odd.notes) == ('notes' in row), row


@pytest.mark.parametrize('name', ODD)
def test_a_copy_has_the_same_frames_at_the_same_times(odd_files, name, tmp_path):
    odd = ODD[name]
    row = reencode_video(odd_files[name], tmp_path / 'x.mp4', Encoding(preset='ultrafast', crf=10))
    assert row['verdict'] == 'ok', row
    assert (row['num_frames'], row['rotation']) == (len(odd.times), 0)
    assert row['seconds'] == pytest.approx(odd.duration, abs=2e-3)
    check(name, tmp_path / 'x.mp4', size=tuple(side // 2 * 2 for side in odd.size))


@pytest.mark.parametrize('name', ODD)
def test_curation_sees_the_same_first_frames(odd_files, name):
    odd = ODD[name]
    frames = first(dict(path=odd_files[name]), 5, View(48, 48, squash=True))
    assert odd.found(frames) == odd.indices[:5].tolist()


@pytest.mark.parametrize('layout', LAYOUTS)
def test_layouts_are_described_alike(layouts, layout, tmp_path):
    """Codec, length, size, first and last frame of inspection, decoders and copies."""
    path, times = layouts[layout], frame_times(layout)
    arguments = dict(codec='libx264', rotation=0, pix_fmt='yuv420p') | LAYOUTS[layout][1]
    codecs = {'libx264': 'h264', 'libx265': 'hevc', 'libvpx-vp9': 'vp9', 'libvpx': 'vp8'}
    for check_frames in (False, True):
        row = inspect_video(path, check_frames)
        assert (row['verdict'], row['num_frames']) == ('ok', 100), row
        assert ('notes' in row) == (layout in ('varying rate', 'MPEG-2')), 'a header that is wrong'
        assert row['codec'] == codecs.get(arguments['codec'], arguments['codec'])
        assert row['pix_fmt'] == arguments['pix_fmt']
        assert row['rotation'] == -arguments['rotation'] % 360
        # The last frame lasts as long as most do.
        assert row['seconds'] == pytest.approx(times[-1] + 0.04, abs=0.08)
    copy = reencode_video(path, tmp_path / 'x.mp4', Encoding(preset='ultrafast', crf=10))
    for file in (path, tmp_path / 'x.mp4'):
        for backend in ('pyav', 'decord'):
            frames, begins, duration = decoded(file, [0.0, 1e6, *times[40:60]], backend)
            assert duration == pytest.approx(row['seconds'], abs=2e-3)
            turned = -arguments['rotation'] // 90
            found = [frame_index(np.rot90(frame, turned)) for frame in frames]
            assert found == [0, 99, *range(40, 60)]
            np.testing.assert_allclose(begins, times[[0, 99, *range(40, 60)]], atol=2e-3)
            if file == path:
                assert {frame.shape[1::-1] for frame in frames} == {(row['width'], row['height'])}
    assert copy['seconds'] == pytest.approx(row['seconds'], abs=2e-3)
    assert (copy['pix_fmt'], copy['rotation']) == ('yuv420p', 0)


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
            frames, _, _ = decoded(file, [0.2], backend)
            found = frames[0].reshape(-1, 3).mean(axis=0)
            tolerance = 3 if file == path else 6  # two roundings more
            np.testing.assert_allclose(found, expected, atol=tolerance, err_msg=backend)


def test_layouts_without_key_frames_are_not_given_to_others(layouts):
    from vito_mm.videos.backends.plain import plain_timeline

    codecs = ('h264', 'vp8', 'vp9', 'hevc', 'mpeg4')
    assert plain_timeline(str(layouts[NO_KEY_FRAMES]), codecs) is None
    assert len(plain_timeline(str(layouts['B-frames']), codecs)) == 100
