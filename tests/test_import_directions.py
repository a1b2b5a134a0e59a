"""Imports run downwards, in the order of docs/code.md, local imports included."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPO

ORDER = [
    *('version', 'compat', 'utils', 'registry', 'checkpoint', 'videos', 'datasets', 'models'),
    *('launch', 'probes', 'visualization', 'engine', 'evaluation', 'transfer', 'curation'),
    'miniscenes',
]
PACKAGE = REPO / 'vito_mm'


def imported(file: Path) -> Iterator[tuple[str, int]]:
    """Rooms that a file imports from, with the line."""
    package = file.relative_to(REPO).parts[:-1]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple((node.module or '').split('.')) if node.module else ()
            names = [base[1]] if len(base) > 1 else [alias.name for alias in node.names]
            yield from ((name, node.lineno) for name in names if base[0] == 'vito_mm')


@pytest.mark.parametrize('room', ORDER)
def test_a_room_imports_only_from_those_below_it(room):
    files = [PACKAGE / f'{room}.py'] if (PACKAGE / f'{room}.py').exists() else None
    above = ORDER[ORDER.index(room) + 1 :]
    hits = [
        f'{file.relative_to(REPO)}:{line} imports {name}'
        for file in files or sorted((PACKAGE / room).rglob('*.py'))
        for name, line in imported(file)
        if name in above
    ]
    assert not hits


def test_videos_need_no_openmmlab():
    hits = [
        f'{file.relative_to(REPO)}:{node.lineno}'
        for file in (PACKAGE / 'videos').rglob('*.py')
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (getattr(node, 'module', None), *(alias.name for alias in node.names))
        if name and name.split('.')[0] in ('mmengine', 'mmcv', 'mmseg', 'mmdet', 'mmpretrain')
    ]
    assert not hits
