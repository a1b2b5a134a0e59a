"""Videos that are shown, and a choice of them."""

import os

import pytest

from tests.conftest import write_video
from vito_mm.videos import frames, write_manifest
from vito_mm.visualization.clips import read_some, rows_of


def test_sources_are_folders_manifests_files_and_lists(tmp_path, video_folder):
    write_manifest(tmp_path / 'some.jsonl', [dict(path='videos/1.mp4', label=3)])
    assert len(rows_of(video_folder)) == 6
    assert dict(rows_of(tmp_path / 'some.jsonl')[0])['label'] == 3
    assert rows_of(str(video_folder / '0.mp4')) == [dict(path=str(video_folder / '0.mp4'))]
    assert len(rows_of([video_folder / '0.mp4', 'b.mp4'])) == 2
    with pytest.raises(FileNotFoundError, match='no file or folder'):
        rows_of(tmp_path / 'nowhere.mp4')


def test_a_choice_is_fixed_and_skips_what_cannot_be_read(tmp_path):
    for index in range(6):
        write_video(tmp_path / f'{index}.mp4', num_frames=10)
    rows = [*rows_of(tmp_path), dict(path=str(tmp_path / 'gone.mp4'))]

    def read(row):
        if row['path'].endswith('3.mp4'):
            os.abort()  # as a decoder does on some files
        return frames.spread(row, 1, frames.evaluation_view(32))

    clips, errors = read_some(rows, 7, read)
    assert [clip.name for clip in clips] == ['0.mp4', '1.mp4', '2.mp4', '4.mp4', '5.mp4']
    assert len(errors) == 2
    assert 'gone.mp4' in ''.join(errors)
    assert 'SIGABRT' in ''.join(errors)
    chosen = [[clip.name for clip in read_some(rows, 2, read, seed)[0]] for seed in (0, 0, 1, 2)]
    assert chosen[0] == chosen[1]
    assert len({tuple(names) for names in chosen}) > 1
