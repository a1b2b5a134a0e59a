"""Builds and installs of the package, and what its import says in a broken environment."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import warnings
import zipfile
from pathlib import Path

import mmengine
import pytest
import torch

from tests.conftest import with_original_mim
from vito_mm.compat import check_environment

REPO = Path(__file__).resolve().parents[1]
SOURCES = (
    'CHANGELOG.md',
    'CITATION.cff',
    'LICENSE',
    'MANIFEST.in',
    'Makefile',
    'model-index.yml',
    'pyproject.toml',
    'setup.cfg',
    'setup.py',
    'configs',
    'projects',
    'requirements',
    'tools',
    'vito_mm',
    'vito_mm_cli.py',
)


def run(command: list, cwd: Path, **environment: str) -> str:
    """Standard output and error of a command that must succeed."""
    env = {**os.environ, 'PYTHONWARNINGS': 'ignore', **environment}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def copy_checkout(target: Path) -> Path:
    """Copy what builds need, with the links that an editable install leaves in the package."""
    ignored = shutil.ignore_patterns('__pycache__', '.mim')
    for name in SOURCES:
        source = REPO / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignored)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name)
    (target / 'README.md').write_text('# vito_mm\n')
    return target


class Environment:
    """A virtual environment that sees the packages of the running one, but not its vito_mm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        run([sys.executable, '-m', 'venv', '--without-pip', folder], folder.parent)
        self.python = folder / 'bin' / 'python'
        (self.site_packages,) = folder.glob('lib/python3*/site-packages')
        # A folder named in a .pth file comes after site-packages, and its own .pth files, such as
        # the one of an editable vito_mm, are not read.
        (self.site_packages / 'parent.pth').write_text(sysconfig.get_paths()['purelib'])

    def install(self, *arguments: object) -> None:
        """Install offline, against the packages that are there."""
        options = ['--no-index', '--no-deps', '--no-build-isolation', '--ignore-installed']
        run([self.python, '-m', 'pip', 'install', *options, *arguments], self.folder)

    def mim(self, *commands: str) -> list[str]:
        """Outputs of calls of mim from a folder that is not the checkout, in one process."""
        code = (
            'import sys; from mim.cli import cli\n'
            'for command in sys.argv[1:]:\n'
            '    cli(command.split(), prog_name="mim", standalone_mode=False)\n'
            '    print("--- end ---", flush=True)\n'
        )
        return run([self.python, '-c', code, *commands], self.folder).split('--- end ---\n')[:-1]

    def assert_complete(self, package: Path) -> None:
        """The package is found at this place by MMEngine and mim, with its configs and tools."""
        code = (
            'from mmengine.utils import get_installed_path\n'
            'print(get_installed_path("vito_mm"))\n'
            'import importlib.util; print(importlib.util.find_spec("vito_mm").origin)'
        )
        root, origin = run([self.python, '-c', code], self.folder).splitlines()[-2:]
        assert Path(root).resolve() == Path(origin).parent.resolve() == package.resolve()
        for part in (
            *('configs/vito/pretrain_r50.py', 'projects/miniscenes_study/demo.py'),
            *('tools/train.py', 'model-index.yml'),
        ):
            assert (Path(root) / '.mim' / part).is_file()
        ran, configs, models, downloaded = self.mim(
            'run vito_mm environment -- --help',
            'search vito_mm --valid-config',
            'search vito_mm',
            f'download vito_mm --config pretrain_r50 --dest {self.folder}/downloaded',
        )
        assert f'{root}/.mim/tools/environment.py' in ran
        assert 'usage: environment.py' in ran
        assert 'pretrain_r50' in configs
        assert re.search(r'weight +no weights are published', models)
        assert 'Successfully dumped pretrain_r50.py' in downloaded
        assert os.listdir(self.folder / 'downloaded') == ['pretrain_r50.py']
        command = self.folder / 'bin' / 'vito-mm'
        assert 'usage: build_mmcv.py' in run([command, 'build-mmcv', '--help'], self.folder)
        assert re.search(r'^  dist-train ', run([command], self.folder), re.MULTILINE)
        with pytest.raises(AssertionError, match='did you mean transfer'):
            run([command, 'transfr'], self.folder)


@with_original_mim
def test_editable_install_then_sdist_then_wheel(tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path / 'checkout')

    editable = Environment(tmp_path / 'editable')
    editable.install('-e', checkout)
    mim = checkout / 'vito_mm' / '.mim'
    assert (mim / 'configs').readlink() == Path('..', '..', 'configs')
    editable.assert_complete(checkout / 'vito_mm')
    (checkout / 'configs' / 'new.py').write_text('')
    assert (mim / 'configs' / 'new.py').exists(), 'a new config needs no new install'
    (checkout / 'configs' / 'new.py').unlink()

    # With the links of the editable install still in the checkout.
    code = 'from setuptools import build_meta; build_meta.build_sdist("dist")'
    run([sys.executable, '-c', code], checkout)
    (sdist,) = (checkout / 'dist').glob('vito_mm-*.tar.gz')
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    assert not [name for name in names if '/.mim' in name]
    assert any(name.endswith('/tools/dist_train.sh') for name in names)

    command = [sys.executable, '-m', 'pip', 'wheel', '--no-index', '--no-deps']
    command += ['--no-build-isolation', '-w', tmp_path]
    run([*command, sdist], tmp_path)
    (wheel,) = tmp_path.glob('vito_mm-*.whl')
    with zipfile.ZipFile(wheel) as archive:
        from_sdist = set(archive.namelist())
    wheel.unlink()
    run([*command, checkout], tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        assert set(archive.namelist()) == from_sdist
    modules = {str(path.relative_to(REPO)) for path in (REPO / 'vito_mm').rglob('*.py')}
    assert {name for name in modules if '.mim' not in name} <= from_sdist
    assert not any('__pycache__' in name or name.startswith('tests') for name in from_sdist)

    installed = Environment(tmp_path / 'wheel')
    installed.install(wheel)
    installed.assert_complete(installed.site_packages / 'vito_mm')

    again = Environment(tmp_path / 'again')
    again.install('-e', checkout)
    assert (mim / 'tools' / 'train.py').is_file()


def failed_import(first_on_path: Path) -> str:
    """What ``import vito_mm`` says with a folder first on the path."""
    done = subprocess.run(
        [sys.executable, '-c', 'import vito_mm'],
        cwd=first_on_path,
        env={**os.environ, 'PYTHONPATH': f'{first_on_path}{os.pathsep}{REPO}'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith('ImportError: ')
    # The traceback ends in the check, not inside another package.
    assert done.stderr.rindex('vito_mm/compat.py') > done.stderr.rfind('site-packages')
    return message


@pytest.mark.parametrize(
    ('version', 'ops', 'cause', 'remedy'),
    [
        ('2.0.0', None, 'mmcv >= 2.0.1, but 2.0.0 is installed', 'vito-mm build-mmcv'),
        ('2.1.0', None, 'without its compiled ops', 'vito-mm build-mmcv'),
        ('2.1.0', 'undefined symbol: _ZN3c10', 'undefined symbol', 'vito-mm build-mmcv'),
    ],
    ids=['too old', 'no ops', 'ops for another torch'],
)
def test_import_with_a_wrong_mmcv(version, ops, cause, remedy, tmp_path: Path) -> None:
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv/__init__.py').write_text(f'__version__ = "{version}"\n')
    if ops:
        (tmp_path / 'mmcv/_ext.py').write_text(f'raise ImportError("{ops}")')
    message = failed_import(tmp_path)
    assert cause in message
    assert remedy in message


def test_newer_versions_than_were_tried_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        check_environment()
    monkeypatch.setattr(mmengine, '__version__', '0.10.99')
    with pytest.warns(UserWarning, match='0.10.99'):
        check_environment()
    monkeypatch.setattr(torch, '__version__', '2.0.1')
    with pytest.raises(ImportError, match=r'torch >= 2\.1'):
        check_environment()


def test_import_with_a_setuptools_without_pkg_resources(tmp_path: Path) -> None:
    # A finder that hides the module, as if the installed setuptools did not have it.
    (tmp_path / 'sitecustomize.py').write_text(
        'import sys\n'
        'from importlib.machinery import PathFinder\n'
        'class Hidden(PathFinder):\n'
        '    @classmethod\n'
        '    def find_spec(cls, name, path=None, target=None):\n'
        '        if name == "pkg_resources":\n'
        '            return None\n'
        '        return PathFinder.find_spec(name, path, target)\n'
        'sys.meta_path[sys.meta_path.index(PathFinder)] = Hidden\n'
    )
    message = failed_import(tmp_path)
    assert 'pkg_resources' in message
    assert 'setuptools>=70,<82' in message
