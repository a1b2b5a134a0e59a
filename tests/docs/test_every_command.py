"""Commands, code, files and config keys in the pages are there; the README's commands are run."""

import ast
import re

import pytest

from tests.conftest import REPO

from . import test_commands  # noqa: F401  fills RUN
from .pages import PAGES, RUN, SHELL, Block, Command, blocks_of, commands_of
from .parsing import check_command, check_config_text

ELSEWHERE = {
    r'make test': 'Makefile',
    r'make demo': 'tests/projects',
    r'tools/dist_train\.sh': 'tests/tools/test_train.py',
    r'mim train mm(seg|det)': 'tests/end_to_end/test_video_to_tasks.py',
    r'python tools/probe\.py knn': 'tests/tools/test_probe.py',
    r'python tools/curate_videonet\.py': 'tests/curation',
}
"""Commands of the README that run in other tests, on data of their own."""
CODE = [block for page in PAGES for block in blocks_of(page) if block.language == 'python']


@pytest.mark.parametrize('page', PAGES)
def test_every_block_says_what_it_holds(page):
    known = {*SHELL, 'python', 'pycon', 'json', 'text', 'html', 'yaml'}
    unknown = [b.line for b in blocks_of(page) if b.language not in known]
    assert not unknown, f'{page}, lines {unknown}: the fence names no language'


def test_every_command_of_the_readme_is_run():
    rest = [command.text for command in commands_of('README.md') if command not in RUN]
    assert not [text for text in rest if not any(re.match(known, text) for known in ELSEWHERE)]
    assert all((REPO / place).exists() for place in ELSEWHERE.values())


@pytest.mark.parametrize('page', [page for page in PAGES if commands_of(page)])
def test_every_command_could_run(page):
    wrong = []
    for command in commands_of(page):
        try:
            check_command(command.words)
        except (AssertionError, ValueError, KeyError, TypeError) as error:
            wrong.append(f'line {command.line}: {command.text}\n    {error}')
    assert not wrong, f'{page}:\n' + '\n'.join(wrong)


@pytest.mark.parametrize('block', CODE, ids=lambda block: f'{block.page}:{block.line}')
def test_configs_in_the_pages_load_and_their_keys_exist(block: Block, tmp_path):
    """A config is a block of nothing but assignments; other code must be Python."""
    if all(isinstance(node, ast.Assign) for node in ast.parse(block.text).body):
        file = tmp_path / 'config.py'
        file.write_text(block.text)
        check_config_text(file)


@pytest.mark.parametrize('page', [page for page in PAGES if page != 'CHANGELOG.md'])
def test_files_that_are_named_exist(page):
    """In running text, such as `tools/train.py`; a pattern or a place of the user's is none."""
    text = (REPO / page).read_text()
    named = re.findall(r'`((?:tools|configs|benchmarks|tests|vito_mm)/[\w./-]+)`', text)
    missing = [name for name in named if not (REPO / name).exists()]
    assert not missing, f'{page} names {", ".join(missing)}'


def command(text: str) -> Command:
    return Command('page.md', 1, text)


@pytest.mark.parametrize(
    ('text', 'what'),
    [
        ('python tools/probe.py knn CHECKPOINT --date x', 'does not take'),
        ('python tools/probes.py knn', 'there is no tools/probes.py'),
        ('tools/dist_train.sh configs/vito/nothing.py 8', 'there is no config'),
        ('tools/dist_train.sh CONFIG 8 --cfg-options model.neck.pool=1', 'has no pool'),
        ('tools/dist_train.sh CONFIG 8 --cfg-options modell.neck.pooling=1', 'no such key'),
        ('tools/dist_train.sh CONFIG 8 --cfg-options default_hooks.a.type=Hok', 'no hook Hok'),
        ('mim train mmseg configs/seg/vito_ade20k.py --gpu 4', 'has no --gpu'),
        ('pip install "vito_mm[nothing]"', 'no extra'),
        ('pip install -r requirements/nothing.txt', 'there is no requirements'),
        ('MAX_RESTART=3 tools/dist_train.sh CONFIG 8', 'nothing reads MAX_RESTART'),
        ('pithon tools/train.py', 'what is pithon'),
    ],
)
def test_what_is_wrong_with_a_command_is_noticed(text, what):
    with pytest.raises(AssertionError, match=what):
        check_command(command(text).words)
