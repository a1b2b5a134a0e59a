"""The documentation as a site: it builds without a warning, and holds what it should."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
import yaml

from tests.conftest import REPO
from vito_mm.registry import REGISTRIES

pytestmark = pytest.mark.slow  # `make docs` fails on the same warnings
DOCS = REPO / 'docs'
inventories = pytest.importorskip('sphinx.util.inventory')


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> Path:
    """Builds as ``make docs`` does, where no connection can be made."""
    folder = tmp_path_factory.mktemp('docs')
    (folder / 'sitecustomize.py').write_text(
        'import socket\n'
        'def refuse(*args, **kwargs):\n'
        '    raise OSError("the documentation must build without a network")\n'
        'socket.socket.connect = socket.getaddrinfo = refuse\n'
    )
    (words,) = re.findall(r'\$\(PY\) (-m sphinx .*) docs docs/', (REPO / 'Makefile').read_text())
    done = subprocess.run(
        [sys.executable, *words.split(), '-d', folder / 'doctrees', DOCS, folder / 'html'],
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': f'{folder}{os.pathsep}{REPO}'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, '')
    return folder / 'html'


class Page(HTMLParser):
    """Links and anchors of an HTML file."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list) -> None:
        values = dict(attrs)
        self.anchors.add(values.get('id') or '')
        if tag == 'a':
            self.links.add(values.get('href') or '')
        elif tag == 'link' and values.get('rel') not in ('stylesheet', 'icon', 'preload'):
            pass
        else:
            self.loaded |= {values[name] for name in ('src', 'href') if values.get(name)}


def pages_in(site: Path) -> dict[Path, Page]:
    return {file: Page(file) for file in sorted(site.rglob('*.html'))}


def test_links_within_the_site_lead_somewhere(site):
    pages = pages_in(site)
    broken = []
    for file, page in pages.items():
        for link in page.links:
            place, anchor = urldefrag(unquote(link))
            if re.match(r'[a-z]+:', place):
                continue
            target = (file.parent / place).resolve() if place else file
            if not target.exists() or (
                anchor and target in pages and anchor not in pages[target].anchors
            ):
                broken.append(f'{file.relative_to(site)}: {link}')
    assert not broken


def test_nothing_is_loaded_from_elsewhere(site):
    for file, page in pages_in(site).items():
        foreign = [link for link in page.loaded if re.match(r'(https?:)?//', link)]
        assert not foreign, file
    for file in site.rglob('*.css'):
        assert not re.search(r'url\(["\']?(https?:)?//|@import', file.read_text()), file


def test_formulas_are_drawn_without_a_script(site):
    assert '<math ' in (site / 'api/rooms/vito_mm.models.html').read_text()


def documented(site: Path) -> set[str]:
    with (site / 'objects.inv').open('rb') as file:
        inventory = inventories.InventoryFile.load(file, '', lambda base, uri: uri)
    kinds = getattr(inventory, 'data', inventory)  # a dict, or an object around it
    return {name for kind, names in kinds.items() if kind[:3] == 'py:' for name in names}


def test_names_of_configs_are_in_the_reference(site):
    last = {name.rpartition('.')[2] for name in documented(site)}
    registered = [module for registry in REGISTRIES for module in registry.module_dict.values()]
    own = {module.__name__ for module in registered if module.__name__[0].isupper()}
    assert len(own) > 20
    assert own <= last


def test_read_the_docs_builds_from_files_that_exist():
    settings = yaml.safe_load((REPO / '.readthedocs.yaml').read_text())
    assert settings['sphinx']['fail_on_warning']
    assert (REPO / settings['sphinx']['configuration']).is_file()
    commands = ' '.join(settings['build']['jobs']['install'])
    named = re.findall(r'requirements/[\w.-]+', commands)
    assert named
    assert all((REPO / name).is_file() for name in named)
