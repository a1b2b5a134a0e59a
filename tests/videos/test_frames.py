"""Frames for a network: which they are, and what is cut from them."""

import cv2
import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from tests.conftest import frame_index
from vito_mm.videos import decode_frames
from vito_mm.videos.errors import VideoReadError
from vito_mm.videos.frames import View, evaluation_view, first, spread
from vito_mm.videos.prepare.integrity import inspect_video

WHOLE = View(64, 64, squash=True)


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.ts', 'a.avi'])
def test_the_first_frames_are_those_that_are_shown_first(make_video, name):
    path = make_video(name, num_frames=120, size=(96, 64), codec='libx264')
    for count in (1, 100, 999):  # of 120
        frames = first(dict(path=path), count, WHOLE)
        assert frames.shape[1:] == (64, 64, 3)
        assert frames.dtype == np.uint8
        assert [frame_index(frame) for frame in frames] == list(range(min(count, 120)))


@pytest.mark.parametrize('rotation', [0, 90, 180])
def test_frames_are_those_of_decode_frames_cut_in_the_middle(make_video, rotation):
    path = make_video(num_frames=12, size=(96, 64), rotation=rotation, texture=3)
    found = first(dict(path=path), 12, View(48, 32))
    whole, _ = decode_frames(path, lambda seconds: np.arange(12) / 25, short_side=48)
    height, width = whole[0].shape[:2]
    assert (height > width) == (rotation == 90)
    top, left = (height - 32) // 2, (width - 32) // 2
    expected = np.stack([frame[top : top + 32, left : left + 32] for frame in whole])
    np.testing.assert_array_equal(found, expected)


def test_small_frames_are_enlarged(make_video):
    path = make_video(num_frames=2, size=(64, 48), texture=1, pix_fmt='yuv444p')
    frame = decode_frames(path, lambda seconds: np.zeros(1))[0][0]
    enlarged = cv2.resize(frame, (128, 96), interpolation=cv2.INTER_LINEAR).astype(int)
    found = first(dict(path=path), 1, View(96, 80))[0]
    assert np.abs(enlarged[8:88, 24:104] - found).mean() < 0.5


def test_spread_frames_are_in_the_middle_of_equal_parts(make_video):
    path = make_video(num_frames=100)
    clip = spread(dict(path=path), 4, WHOLE)
    assert [frame_index(frame) for frame in clip.frames] == [12, 37, 62, 87]
    np.testing.assert_allclose(clip.times, [0.48, 1.48, 2.48, 3.48], atol=1e-3)
    assert (clip.name, clip.seconds) == (path.name, pytest.approx(4))
    part = spread(dict(video_path=path, start=1.0, end=2.0), 2, evaluation_view(48))
    assert [frame_index(frame) for frame in part.frames] == [31, 43]
    with pytest.raises(VideoReadError, match=r'start=5 to end=None s is not within its 4\.00 s'):
        spread(dict(path=path, start=5), 2, WHOLE)
    short = spread(dict(path=make_video('short.mp4', num_frames=1)), 4, WHOLE)
    assert [frame_index(frame) for frame in short.frames] == [0, 0, 0, 0]
    assert [frame_index(frame) for frame in short.distinct().frames] == [0]


@pytest.mark.parametrize('shape', [(48, 100), (101, 48), (32, 33), (20, 31), (33, 32)])
def test_the_evaluation_view_is_torchvisions(shape):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8))
    expected = transforms.Compose(
        [
            transforms.Resize(32, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(32),
        ]
    )(image)
    view = evaluation_view(32)
    for frame in (image, np.asarray(image)):
        np.testing.assert_array_equal(view(frame), np.asarray(expected))


def test_an_image_is_cut_as_a_frame_is(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'ä.png'), image[:, :, ::-1])
    np.testing.assert_array_equal(
        spread(dict(path=tmp_path / 'ä.png'), 1, View(60, 40)).frames[0], image[10:50, 25:65]
    )


def test_recordings_that_start_in_the_middle_begin_at_a_key_frame(make_video):
    path = make_video('a.ts', num_frames=60, gop=20, size=(96, 64))
    content = path.read_bytes()
    for part in range(3, len(content) // 188, 7):
        path.write_bytes(content[188 * part :])
        about = inspect_video(path, check=True)
        if about['verdict'] == 'ok':
            found = [frame_index(frame) for frame in first(dict(path=path), 100, WHOLE)]
            assert found == list(range(60 - about['num_frames'], 60))
        else:  # no key frame is left
            with pytest.raises(VideoReadError):
                first(dict(path=path), 100, WHOLE)


def test_damage_among_the_first_frames_is_an_error(make_video):
    path = make_video(num_frames=60, container_options={'movflags': 'faststart'}, texture=0)
    content = path.read_bytes()
    for damaged in (content[: len(content) * 2 // 3], content[:-1000] + bytes(1000)):
        path.write_bytes(damaged)
        with pytest.raises(VideoReadError, match=r'cut off|Invalid data|damaged') as caught:
            first(dict(path=path), 100, WHOLE)
        assert caught.value.path == str(path)


def test_senseless_sizes_are_refused(make_video):
    with pytest.raises(ValueError, match=r'224 pixels cannot be cut .* 200 pixels'):
        View(200, 224)
    with pytest.raises(ValueError, match='1 or more'):
        first(dict(path=make_video(num_frames=2)), 0, WHOLE)
