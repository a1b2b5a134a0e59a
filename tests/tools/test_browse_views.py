"""The command that draws what a run will see."""

import cv2
import pytest

from tests.conftest import REPO
from tests.helpers.processes import run_tool, shell, without_deprecations
from tests.tools.test_train import CONFIG

TOOL = REPO / 'tools/browse_views.py'


def test_the_command_writes_a_picture_and_says_so(tmp_path, textured_folder):
    (textured_folder / 'bad \udcff.mp4').touch()
    out = tmp_path / 'sheet.png'
    options = ['--cfg-options', f'train_dataloader.dataset.data_root={textured_folder}']
    done = shell(TOOL, CONFIG, '--out', out, '--num-clips', 9, '--seed', 7, *options)
    assert (done.returncode, without_deprecations(done.stderr)) == (0, '')
    assert '9 clips of 8 files' in done.stdout
    assert 'is empty (0 bytes)' in done.stdout
    assert 'median 0.7' in done.stdout
    assert done.stdout.endswith(f'written to {out}\n')
    assert cv2.imread(str(out)) is not None


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ('no_such.py', 'there is no config file'),
        ("train_dataloader = dict(dataset=dict(type='BaseDataset'))", 'has no VideoDataset'),
        ("_base_ = ['{base}']\ndata_root = '{folder}'", 'no folder'),
        (
            "_base_ = ['{base}']\ntrain_dataloader = dict(dataset=dict(data_root='{folder}'))",
            'is empty (0 bytes)',
        ),
    ],
)
def test_errors_are_told_without_a_traceback(tmp_path, monkeypatch, config, message):
    (tmp_path / 'videos').mkdir()
    (tmp_path / 'videos' / 'empty.mp4').touch()
    if not config.endswith('.py'):
        (tmp_path / 'config.py').write_text(config.format(base=CONFIG, folder=tmp_path / 'videos'))
        config = 'config.py'
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        run_tool(monkeypatch, 'browse_views.py', config)
    assert message in str(error.value)
    assert not list(tmp_path.rglob('*.png'))
