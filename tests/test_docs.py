"""What the README and the docs tell a user to type about videos."""

import json
import re
import shlex
import sys

import pytest

from tests.conftest import REPO, write_video
from tests.tools.test_train import shell

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
