"""Build of vito_mm: metadata is in setup.cfg, this adds the folder ``.mim`` that mim reads."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
PACKAGE = 'vito_mm'
MIM_PARTS = ('configs', 'projects', 'tools', 'model-index.yml')


class BuildPy(build_py):
    """Adds ``vito_mm/.mim``: copies in a wheel, links into the checkout in an editable install."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            link_mim(ROOT / PACKAGE / '.mim')
        else:
            copy_mim(Path(self.build_lib, PACKAGE, '.mim'))


class EditableWheel(editable_wheel):
    """Lets mim and MMEngine find an editable install.

    Both join the folder of the distribution, here site-packages, with the first line of
    ``top_level.txt``, and so miss a package that lies elsewhere. An absolute path in that line
    leads them to the checkout; the package's name follows in the second.
    """

    def run(self) -> None:
        self._ensure_dist_info()
        top_level = Path(self.dist_info_dir, 'top_level.txt')
        top_level.write_text(f'{ROOT / PACKAGE}\n{PACKAGE}\n', encoding='utf-8')
        super().run()


def link_mim(target: Path) -> None:
    """Make ``target`` a folder of relative links to the checkout's ``MIM_PARTS``."""
    clear(target)
    target.mkdir()
    for part in MIM_PARTS:
        (target / part).symlink_to(Path('..', '..', part))


def copy_mim(target: Path) -> None:
    """Make ``target`` a folder with copies of the checkout's ``MIM_PARTS``."""
    clear(target)
    target.mkdir(parents=True)
    for part in MIM_PARTS:
        source = ROOT / part
        if source.is_dir():
            ignored = shutil.ignore_patterns('__pycache__', '*.pyc')
            shutil.copytree(source, target / part, ignore=ignored)
        else:
            shutil.copy2(source, target / part)


def clear(path: Path) -> None:
    """Remove what an earlier build left at ``path``."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


setup(cmdclass={'build_py': BuildPy, 'editable_wheel': EditableWheel})
