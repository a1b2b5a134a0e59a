"""The documentation as a site: it builds without a warning, and holds what it should."""

import importlib
import os
import pkgutil
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urldefrag

import pytest
import yaml
from sphinx.util.inventory import InventoryFile

import vito_mm
from tests.conftest import REPO
from vito_mm.registry import REGISTRIES

DOCS = REPO / 'docs'


def build(source: Path, out: Path) -> subprocess.CompletedProcess:
    """Build as ``make docs`` does, where no connection can be made."""
    guard = out.parent / 'offline'
    guard.mkdir(exist_ok=True)
    (guard / 'sitecustomize.py').write_text(
        'import socket\n'
        'def refuse(*args, **kwargs):\n'
        '    raise OSError("the documentation must build without a network")\n'
        'socket.socket.connect = socket.getaddrinfo = refuse\n'
    )
    path = os.pathsep.join([str(guard), str(REPO)])
    (words,) = re.findall(r'\$\(PY\) (-m sphinx .*) docs docs/', (REPO / 'Makefile').read_text())
    return subprocess.run(
        [sys.executable, *words.split(), '-d', str(out.parent / 'doctrees'), str(source), str(out)],
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('docs') / 'html'
    done = build(DOCS, out)
    assert (done.returncode, done.stderr) == (0, '')
    return out


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


def test_every_page_is_there_and_in_the_table_of_contents(site):
    names = {
        str(file.relative_to(DOCS)) for file in DOCS.rglob('*.md') if '_build' not in str(file)
    }
    assert len(names) > 20
    index = (site / 'index.html').read_text()
    for name in sorted(names - {'index.md'}):
        html = name.replace('.md', '.html')
        assert (site / html).is_file()
        if name.count('/') == 0 or name == 'api/index.md':
            assert f'href="{html}"' in index, f'{name} is in no toctree of docs/index.md'


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
    assert '<math ' in (site / 'api/models.html').read_text()


def rooms() -> list[ModuleType]:
    """All packages of vito_mm that say what is public in them."""
    found = [
        importlib.import_module(info.name)
        for info in pkgutil.walk_packages(vito_mm.__path__, 'vito_mm.')
        if info.ispkg and '.mim' not in info.name
    ]
    return [room for room in found if hasattr(room, '__all__')]


def documented(site: Path) -> set[str]:
    with (site / 'objects.inv').open('rb') as file:
        inventory = InventoryFile.load(file, '', lambda base, uri: uri)
    kinds = getattr(inventory, 'data', inventory)  # a dict, or an object around it
    return {name for kind, names in kinds.items() if kind[:3] == 'py:' for name in names}


def test_public_names_are_in_the_reference(site):
    names = documented(site)
    assert len(names) > 300
    objects = []
    for name in names:
        module, _, last = name.rpartition('.')
        if module in sys.modules:
            objects.append(getattr(sys.modules[module], last, None))
    missing = [
        f'{room.__name__}.{name}'
        for room in rooms()
        for name in room.__all__
        if f'{room.__name__}.{name}' not in names
        and not any(getattr(room, name) is known for known in objects)
    ]
    assert len(rooms()) > 10
    assert not missing


def test_names_of_configs_are_in_the_reference(site):
    last = {name.rpartition('.')[2] for name in documented(site)}
    registered = {name for registry in REGISTRIES for name in registry.module_dict}
    own = {name for name in registered if name[0].isupper()}
    assert len(own) > 20
    assert own <= last


def test_what_is_wrong_in_a_page_fails_the_build(tmp_path):
    """In pages without the reference, which takes longest."""
    source = tmp_path / 'docs'
    source.mkdir()
    conf = (DOCS / 'conf.py').read_text().replace('__file__', repr(str(DOCS / 'conf.py')))
    (source / 'conf.py').write_text(conf + 'html_static_path = []\n')
    (source / 'results.md').write_text('# Results\n')
    (source / 'lost.md').write_text('# Lost\n')
    (source / 'index.md').write_text(
        '# Index\n\n```{toctree}\nresults\n```\n\n[a page](nowhere.md), '
        '[a part](results.md#no-such-part), {py:class}`vito_mm.models.Nothing`, ![](no.png)\n'
    )
    done = build(source, tmp_path / 'html')
    assert done.returncode == 1
    for word in ('nowhere.md', 'no-such-part', 'vito_mm.models.Nothing', 'no.png', 'lost.md'):
        assert re.search(rf'WARNING: .*{word}|{word}: WARNING', done.stderr), done.stderr


def test_read_the_docs_builds_from_files_that_exist():
    settings = yaml.safe_load((REPO / '.readthedocs.yaml').read_text())
    assert settings['sphinx']['fail_on_warning']
    assert (REPO / settings['sphinx']['configuration']).is_file()
    commands = ' '.join(settings['build']['jobs']['install'])
    named = re.findall(r'requirements/[\w.-]+', commands)
    assert named
    assert all((REPO / name).is_file() for name in named)
