"""Every command and every piece of code in the pages is run by a test, or says what it needs."""

import ast
import re

import pytest

from tests.conftest import REPO

from . import test_commands  # noqa: F401  its tests tell what they run
from .pages import PAGES, RECORDS, RUN, RUN_CODE, SHELL, Block, Command, blocks_of, commands_of
from .parsing import check_command, check_config_text

WITH_COMMANDS = [page for page in PAGES if commands_of(page)]
CODE = [block for page in PAGES for block in blocks_of(page) if block.language == 'python']


@pytest.mark.parametrize('page', PAGES)
def test_every_block_says_what_it_holds(page):
    known = {*SHELL, 'python', 'json', 'text', 'html', 'yaml'}
    unknown = [b.line for b in blocks_of(page) if b.language not in known]
    assert not unknown, f'{page}, lines {unknown}: the fence names no language'


@pytest.mark.parametrize('page', [page for page in WITH_COMMANDS if page not in RECORDS])
def test_every_command_is_run_or_says_what_it_needs(page):
    open_ones = [
        f'line {command.line}: {command.text}'
        for command in commands_of(page)
        if command not in RUN and not command.needs
    ]
    assert not open_ones, (
        f'{page}: run these in tests/docs/test_commands.py, or put a line *Needs: ...* before '
        'their block:\n' + '\n'.join(open_ones)
    )


@pytest.mark.parametrize('page', WITH_COMMANDS)
def test_every_command_could_run(page):
    wrong = []
    for command in commands_of(page):
        try:
            check_command(command.words)
        except (AssertionError, ValueError, KeyError, TypeError) as error:
            wrong.append(f'line {command.line}: {command.text}\n    {error}')
    assert not wrong, f'{page}:\n' + '\n'.join(wrong)


def is_config(code: str) -> bool:
    """Whether code is a config: nothing but assignments."""
    return all(isinstance(node, ast.Assign) for node in ast.parse(code).body)


@pytest.mark.parametrize('block', CODE, ids=lambda block: f'{block.page}:{block.line}')
def test_every_python_block_is_run_or_is_a_config_that_holds(block: Block, tmp_path):
    if block in RUN_CODE:
        return
    assert is_config(block.text) or block.needs, 'no test runs this code'
    if is_config(block.text):
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


def test_a_mark_counts_only_directly_before_its_block(tmp_path, monkeypatch):
    page = tmp_path / 'page.md'
    page.write_text('*Needs: a GPU.*\n\n    make demo\n\nText.\n\n    make test\n')
    first, second = (block.needs for block in blocks_of(str(page)))
    assert (first, second) == ('a GPU.', '')
