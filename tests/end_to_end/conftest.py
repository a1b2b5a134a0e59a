"""Videos that the tests of runs share: they are written once and only read."""

from pathlib import Path

import pytest

from tests.conftest import write_video


@pytest.fixture(scope='session')
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four clips that can be told apart."""
    folder = tmp_path_factory.mktemp('videos')
    for index in range(4):
        write_video(folder / f'{index}.mp4', num_frames=80, texture=index)
    return folder
