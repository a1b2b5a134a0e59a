"""A tiny MiniScenes on disk, made once."""

import pytest

from vito_mm.miniscenes import make_miniscenes


@pytest.fixture(scope='session')
def miniscenes(tmp_path_factory):
    """Folders of all parts of the preset `tiny`, by task."""
    pytest.importorskip('mmdet')
    root = tmp_path_factory.mktemp('miniscenes')
    return make_miniscenes(root, preset='tiny', seed=3, workers=1, progress=False)
