"""Files that the tests of videos share: they are written once and only read."""

from pathlib import Path

import pytest

from tests.helpers.odd_videos import write_odd
from tests.helpers.video_layouts import write_layouts


@pytest.fixture(scope='session')
def odd_files(tmp_path_factory) -> dict[str, Path]:
    return write_odd(tmp_path_factory.mktemp('odd'))


@pytest.fixture(scope='session')
def layouts(tmp_path_factory) -> dict[str, Path]:
    return write_layouts(tmp_path_factory.mktemp('layouts'))
