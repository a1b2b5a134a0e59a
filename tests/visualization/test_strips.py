"""Strips and videos of masks."""

import av
import numpy as np
import pytest

from vito_mm.videos import decode_frames
from vito_mm.videos.frames import Clip
from vito_mm.videos.writing import write_video
from vito_mm.visualization.attention import overlay
from vito_mm.visualization.canvas import printable, shortened, text_width, wrapped
from vito_mm.visualization.strips import draw_side_by_side, draw_strip

RNG = np.random.default_rng(0)


def random_clip(num_frames: int, size: int) -> tuple[Clip, dict]:
    frames = RNG.integers(0, 256, (num_frames, size, size, 3), dtype=np.uint8)
    masks = {}
    for name, side in (('stage 4', 4), ('stage 5', 2)):
        weights = np.exp(RNG.standard_normal((num_frames, side, side)))
        masks[name] = weights / weights.sum((1, 2), keepdims=True)
    return Clip('clip.mp4', frames, np.arange(num_frames) / 2, num_frames / 2), masks


def places(sheet: np.ndarray, part: np.ndarray) -> list[tuple[int, int]]:
    """Where a picture stands on a sheet, pixel by pixel."""
    height, width = part.shape[:2]
    corners = np.argwhere((sheet[: -height + 1, : -width + 1] == part[0, 0]).all(axis=2))
    return [
        (y, x) for y, x in corners.tolist() if (sheet[y : y + height, x : x + width] == part).all()
    ]


@pytest.mark.parametrize(
    ('num_clips', 'num_frames', 'size'), [(1, 8, 160), (3, 4, 200), (2, 1, 512)]
)
def test_every_frame_stands_above_its_masks(num_clips, num_frames, size):
    drawn = [random_clip(num_frames, size) for _ in range(num_clips)]
    sheet = draw_strip([clip for clip, _ in drawn], [masks for _, masks in drawn], 'title')
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] <= 2100
    columns = set()
    for clip, masks in drawn:
        for index, frame in enumerate(clip.frames):
            ((y, x),) = places(sheet, frame)
            columns.add(x)
            for number, mask in enumerate(masks.values(), start=1):
                ((below, beside),) = places(sheet, overlay(frame, mask[index]))
                assert beside == x
                assert below > y + number * size
    if num_clips == 1:
        assert len(columns) == num_frames  # all in one row


def test_small_and_large_frames_are_shown_at_a_readable_size():
    clip, masks = random_clip(2, 64)
    small = draw_strip([clip], [masks], 'title')
    assert not places(small, clip.frames[0])
    assert small.shape[0] > 3 * 160
    clip, masks = random_clip(9, 600)
    large = draw_strip([clip], [masks], 'title')
    assert large.shape[1] < 2000
    assert large.shape[0] > 9 // 3 * 3 * 512


def test_a_video_holds_what_was_drawn(tmp_path):
    clip, masks = random_clip(6, 225)
    pictures = [
        draw_side_by_side(frame, time, {name: mask[i] for name, mask in masks.items()}, 'title')
        for i, (frame, time) in enumerate(zip(clip.frames, clip.times, strict=True))
    ]
    assert {tuple(side % 2 for side in picture.shape[:2]) for picture in pictures} == {(0, 0)}
    assert places(pictures[0], clip.frames[0])
    assert places(pictures[0], overlay(clip.frames[0], masks['stage 5'][0]))
    file = tmp_path / 'new' / 'masks.mp4'
    assert write_video(file, iter(pictures), 12.5) == 6
    shown, times = decode_frames(file, lambda seconds: np.arange(6) / 12.5 + 0.01)
    np.testing.assert_allclose(times, np.arange(6) / 12.5, atol=1e-3)
    for picture, frame in zip(pictures, shown, strict=True):
        assert np.abs(frame.astype(int) - picture).mean() < 12
    with av.open(str(file)) as container:
        assert container.streams.video[0].codec_context.name == 'h264'


def test_a_video_that_fails_leaves_nothing(tmp_path):
    def pictures():
        yield np.zeros((64, 64, 3), np.uint8)
        raise ValueError('the source ends')

    with pytest.raises(ValueError, match='the source ends'):
        write_video(tmp_path / 'masks.mp4', pictures(), 25)
    assert not list(tmp_path.iterdir())


def test_texts_fit_their_room_and_can_be_written():
    name = 'a_long_name_of_a_video_that_goes_on_0001.mp4'
    short = shortened(name, 150)
    assert text_width(short) <= 150
    assert short.startswith('a_long')
    assert short.endswith('1.mp4')
    assert shortened('short', 150) == 'short'
    assert all(text_width(line) <= 100 for line in wrapped('some words ' * 10, 100))
    assert ' '.join(wrapped('some words ' * 10, 100)) == ('some words ' * 10).strip()
    assert printable('\udcff\n猫é') == '\\udcff\\n\\u732b\u00e9'
