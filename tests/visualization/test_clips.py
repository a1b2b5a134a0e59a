"""Videos that are shown, and their frames."""

import numpy as np
import pytest

from tests.conftest import frame_index, write_video
from vito_mm.videos import VideoReadError, write_manifest
from vito_mm.visualization.clips import centre_view, evenly, read_clip, read_some, rows_of


def test_a_clip_has_the_frames_in_the_middle_of_equal_parts(make_video):
    clip = read_clip(dict(path=make_video(num_frames=100, size=(96, 64))), 32, evenly(4))
    assert clip.frames.shape == (4, 32, 32, 3)
    np.testing.assert_allclose(clip.times, [0.48, 1.48, 2.48, 3.48], atol=0.011)
    assert clip.seconds == pytest.approx(4)
    part = read_clip(dict(path=make_video(num_frames=100), start=1.0, end=2.0), 48, evenly(2))
    assert [frame_index(frame) for frame in part.frames] == [31, 43]
    with pytest.raises(VideoReadError, match=r'start=5 to end=None s is not within its 4\.00 s'):
        read_clip(dict(path=make_video(), start=5), 48, evenly(2))


def test_frames_of_a_short_video_are_shown_once(make_video):
    clip = read_clip(dict(path=make_video(num_frames=3)), 32, evenly(8))
    assert len(clip.frames) == len(clip.times) == 3


@pytest.mark.parametrize('shape', [(48, 100), (100, 48), (32, 32), (20, 31), (33, 32)])
def test_the_view_is_the_middle_of_the_frame(shape):
    height, width = shape
    ramp = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    frame = np.dstack([ramp, np.zeros(shape)]).astype(np.uint8)
    view = centre_view(frame, 32).astype(float)
    assert view.shape == (32, 32, 3)
    assert view[..., 0].mean() == pytest.approx((width - 1) / 2, abs=1)
    assert view[..., 1].mean() == pytest.approx((height - 1) / 2, abs=1)


def test_sources_are_folders_manifests_files_and_lists(tmp_path, video_folder):
    write_manifest(tmp_path / 'some.jsonl', [dict(path='videos/1.mp4', label=3)])
    assert len(rows_of(video_folder)) == 6
    assert dict(rows_of(tmp_path / 'some.jsonl')[0])['label'] == 3
    assert rows_of(str(video_folder / '0.mp4')) == [dict(path=str(video_folder / '0.mp4'))]
    assert len(rows_of([video_folder / '0.mp4', 'b.mp4'])) == 2
    with pytest.raises(FileNotFoundError, match='no file or folder'):
        rows_of(tmp_path / 'nowhere.mp4')


def test_a_choice_is_fixed_and_passes_over_what_cannot_be_read(tmp_path):
    for index in range(6):
        write_video(tmp_path / f'{index}.mp4', num_frames=10)
    rows = [*rows_of(tmp_path), dict(path=str(tmp_path / 'gone.mp4'))]

    def read(row):
        if row['path'].endswith('3.mp4'):
            import os

            os.abort()  # as a decoder does on some files
        return read_clip(row, 32, evenly(1))

    clips, errors = read_some(rows, 7, read)
    assert [clip.title for clip in clips] == ['0.mp4', '1.mp4', '2.mp4', '4.mp4', '5.mp4']
    assert len(errors) == 2
    assert 'gone.mp4' in ''.join(errors)
    assert 'SIGABRT' in ''.join(errors)
    chosen = [[clip.title for clip in read_some(rows, 2, read, seed)[0]] for seed in (0, 0, 1, 2)]
    assert chosen[0] == chosen[1]
    assert len({tuple(names) for names in chosen}) > 1
