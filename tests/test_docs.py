"""What the README and the docs tell a user to type."""

import json
import re
import runpy
import shlex
import shutil
import sys

import pytest
import torch
from torchvision.models import resnet50

from tests.conftest import REPO, write_video
from tests.tools.test_train import shell
from vito_mm.transfer import check_config, export_backbone

PAGES = ('README.md', 'docs/your_own_videos.md')


def commands(page: str) -> list[str]:
    """Indented lines that run a Python tool on /data, in order."""
    text = (REPO / page).read_text()
    return re.findall(r'^    python (tools/(?:prepare_videos|browse_views)\.py .*)$', text, re.M)


@pytest.mark.parametrize('page', PAGES)
def test_commands_about_videos_do_what_the_page_says(tmp_path, page):
    for index in range(3):
        write_video(tmp_path / f'videos/{index}.mp4', size=(96, 64), texture=index)
    (tmp_path / 'videos/page.mp4').write_text('<html>404</html>')
    found = commands(page)
    assert len(found) == 3
    for command in found:
        words = shlex.split(command.replace('/data/', f'{tmp_path}/'))
        result = shell(sys.executable, *words)
        assert result.returncode == 0, result.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / 'small.jsonl').read_text().splitlines()]
    assert sorted(row['verdict'] for row in rows) == ['bad', 'ok', 'ok', 'ok']
    assert all((tmp_path / row['path']).is_file() for row in rows)
    assert (tmp_path / 'views.png').stat().st_size > 10_000


def test_long_recordings_become_rows_of_minutes(tmp_path):
    rows = [dict(path='a.mp4', seconds=185.0), dict(path='b.mp4', seconds=10.0)]
    (tmp_path / 'small.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    (code,) = re.findall(
        r'^```python\n(.*?)^```', (REPO / PAGES[1]).read_text(), re.DOTALL | re.MULTILINE
    )
    exec(code.replace('/data/', f'{tmp_path}/'), {})
    made = [json.loads(line) for line in (tmp_path / 'minutes.jsonl').read_text().splitlines()]
    assert [(row['path'][-5:], row['start'], row['end']) for row in made] == [
        ('a.mp4', 0, 60),
        ('a.mp4', 60, 120),
        ('a.mp4', 120, 180),
        ('b.mp4', 0, 60),
    ]


# Use a VITO checkpoint in your config

HAND_OVER = 'docs/use_a_checkpoint.md'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder that stands for /ckpt, with a training checkpoint of ResNet-50."""
    folder = tmp_path_factory.mktemp('ckpt')
    weights = {f'backbone.{k}': v for k, v in resnet50().state_dict().items() if k[:3] != 'fc.'}
    target = {f'target_net.module.0.{k[9:]}': v for k, v in weights.items()}
    torch.save({'state_dict': weights | target, 'meta': {'iter': 7}}, folder / 'vito.pth')
    return folder


def test_commands_of_the_hand_over(trained, monkeypatch):
    text = (REPO / HAND_OVER).read_text()
    found = re.findall(r'^    python (tools/.*)$', text, re.MULTILINE)
    assert len(found) == 5
    monkeypatch.chdir(REPO)
    for command in found:
        monkeypatch.setattr('sys.argv', shlex.split(command.replace('/ckpt/', f'{trained}/')))
        runpy.run_path(sys.argv[0], run_name='__main__')  # ends by SystemExit when it fails
    made = {path.name for path in trained.iterdir()}
    assert made >= {'backbone.pth', 'torchvision.pth', 'timm.safetensors', 'detectron2.pth'}


@pytest.mark.parametrize('number', range(3), ids=['custom_imports', 'scoped name', 'init_cfg'])
def test_each_way_starts_from_the_whole_checkpoint(number, trained, tmp_path):
    """In a fresh process, by the library's own parts; vito_mm is there only where it is named."""
    blocks = re.findall(
        r'^```python\n(.*?)^```', (REPO / HAND_OVER).read_text(), re.DOTALL | re.MULTILINE
    )
    export_backbone(trained / 'vito.pth', trained / 'backbone.pth')
    config = tmp_path / 'config.py'
    config.write_text(blocks[number].replace('/ckpt/', f'{trained}/'))
    check = check_config(config)
    assert (len(check.match.weights), check.remarks) == (318, [])
    code = (
        'import sys, torch\n'
        'from mmengine.config import Config\n'
        'from mmengine.registry import MODELS, init_default_scope\n'
        f'cfg = Config.fromfile({str(config)!r})\n'
        'init_default_scope(cfg.default_scope)\n'
        'model = MODELS.build(cfg.model)\n'
        'model.backbone.init_weights()\n'
        f'weights = torch.load({str(trained / "backbone.pth")!r})["state_dict"]\n'
        'loaded = model.backbone.state_dict()\n'
        'assert loaded.keys() == weights.keys()\n'
        'assert all(torch.equal(loaded[k], v) for k, v in weights.items())\n'
        f'assert ("vito_mm" in sys.modules) == {number < 2}\n'
    )
    result = shell(sys.executable, '-c', code)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.parametrize('page', ['README.md', 'docs/transfer.md'])
def test_commands_of_the_transfer_table_lack_nothing_but_the_data(page, trained, tmp_path):
    """The real data sets cannot be here; everything else about the command is checked."""
    (command,) = re.findall(
        r'^    python (tools/transfer\.py .*)$', (REPO / page).read_text(), re.MULTILINE
    )
    for name in ('other.pth', 'moclr.pth'):
        shutil.copy(trained / 'vito.pth', tmp_path / name)
    shutil.copy(trained / 'vito.pth', tmp_path)
    named = re.sub(r'(/ckpt/)?\b(\w+\.pth)', rf'{tmp_path}/\2', command)
    result = shell(
        sys.executable,
        *shlex.split(named),
        *('--work-dir', str(tmp_path / 'suite'), '--dry-run', '--no-estimate'),
    )
    assert result.returncode == 2
    problems = [line for line in result.stderr.splitlines() if line.startswith('  - ')]
    assert len(problems) == 4
    assert all('there is no data folder' in problem for problem in problems)
