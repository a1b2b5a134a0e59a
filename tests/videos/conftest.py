"""Files that the tests of videos share: they are written once and only read."""

from pathlib import Path

import pytest

from tests.helpers.video_kinds import write_kinds


@pytest.fixture(scope='session')
def kinds(tmp_path_factory) -> dict[str, Path]:
    return write_kinds(tmp_path_factory.mktemp('kinds'))
