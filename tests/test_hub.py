"""Configs and models of vito_mm by the names that ``mmengine.hub`` has for them."""

from pathlib import Path

import pytest
from mmengine import hub
from mmengine.config import Config

import vito_mm  # noqa: F401  without it MMEngine does not know the name
from tests.conftest import REPO
from tests.helpers.processes import forked

HUB = """
import importlib, sys
from mmengine import hub
importlib.reload(hub.hub), importlib.reload(hub)
from mmengine.hub import get_config, get_model  # before the package, as it may be
assert not hasattr(get_config, '__wrapped__')
importlib.reload(sys.modules['vito_mm'])
for name in sys.argv[1:]:
    model = get_model(f'vito_mm::{name}')
    print(type(model).__module__, type(model).__name__, type(model.backbone).__module__)
try:
    get_model('vito_mm::vito/pretrain_r50.py', pretrained=True)
except ValueError as error:
    print(error)
"""


def run_hub(folder: Path, *names: str) -> list[str]:
    (folder / 'script.py').write_text(HUB)
    (done,) = forked(folder, [folder / 'script.py', *names])
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_models_are_those_of_the_scope_of_their_config(tmp_path):
    names = 'miniscenes/pretrain_r18.py', 'miniscenes/seg_pascal.py', 'miniscenes/det_coco.py'
    *models, error = run_hub(tmp_path, *names)
    pretraining, segmentor, detector = (line.split() for line in models)
    assert pretraining[:2] == ['vito_mm.models.selfsup.vito', 'VITO']
    assert pretraining[2].startswith('mmpretrain.')
    assert (segmentor[1], detector[1]) == ('EncoderDecoder', 'MaskRCNN')
    assert 'no weights of vito_mm::vito/pretrain_r50.py are published' in error


def test_a_config_is_the_file_of_the_installed_package():
    found = hub.get_config('vito_mm::vito/pretrain_r50.py')
    own = Config.fromfile(REPO / 'configs/vito/pretrain_r50.py')
    assert found.model.pop('_scope_') == 'mmpretrain'
    assert found.model == own.model
    assert found.param_scheduler == own.param_scheduler
    for name in ('vito/pretrain_r50.py', 'seg/vito_pascal.py'):  # in the metafile, and not
        with pytest.raises(ValueError, match='no weights of'):
            hub.get_config(f'vito_mm::{name}', pretrained=True)
