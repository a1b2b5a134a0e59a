"""Settings of the documentation, which ``make docs`` builds. Nothing in here needs the network."""

import os
import pkgutil
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / '_extensions')]
# Nothing is computed here: no GPU is touched, and one thread is enough.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import vito_mm  # noqa: E402

project = 'vito_mm'
author = 'The vito_mm authors'
project_copyright = author
version = release = vito_mm.__version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'mathml',
    'short_names',
]
exclude_patterns = ['_build']
default_role = 'literal'
smartquotes_action = 'D'  # quotes stay what one can type
highlight_language = 'bash'  # of indented blocks
nitpicky = True
# Types in docstrings are for readers (`Tensor`, `int, optional`); names of this package must exist.
nitpick_ignore_regex = [('py:class', r'(?!\.|vito_mm).*')]
# Other packages are documented elsewhere.
nitpick_ignore_regex += [('py:class', r'vito_mm\.(.*\.)?_\w+')]  # base classes that are private
nitpick_ignore_regex += [('py:.*', r'(mmengine|mmpretrain|mmseg|mmdet|torch|numpy|av)\..*')]

autodoc_default_options = {'members': True, 'member-order': 'bysource', 'show-inheritance': True}
autodoc_default_options |= {'special-members': '__call__', 'ignore-module-all': True}
autodoc_typehints = 'none'  # docstrings state them
autodoc_preserve_defaults = True
# Where mmcv-lite stands for mmcv, as on Read the Docs: mmdet's parts are documented all the same.
autodoc_mock_imports = [] if find_spec('mmcv._ext') else ['mmcv._ext']
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

myst_heading_anchors = 4

html_theme = 'furo'
html_title = 'vito_mm'
html_static_path = ['_static']
html_css_files = ['wide.css']
html_show_sourcelink = False
html_copy_source = False
html_math_renderer = 'mathml'


CROP = 'vito_mm.datasets.transforms.byol_crop'
"""Has a method that mmcv's `cache_randomness` wraps, which napoleon cannot look at."""


def write_rooms(folder: Path) -> None:
    """Write the pages of the reference: the modules of each package, and those next to them."""
    rooms: dict[str, list[str]] = {}
    for module in pkgutil.walk_packages(vito_mm.__path__, 'vito_mm.'):
        parts = module.name.split('.')
        room = '.'.join(parts[:2]) if module.ispkg or len(parts) > 2 else 'vito_mm'
        if not module.name.endswith('_backend'):  # those of decoders that need not be installed
            lines = rooms.setdefault(room, [f'# {room}', '', '```{eval-rst}'])
            lines.append(f'.. automodule:: {module.name}')
            lines += ['   :no-members:', ''] if module.ispkg or module.name == CROP else ['']
            lines += [f'.. autoclass:: {CROP}.BYOLCrop', '   :no-members:', ''] * (
                module.name == CROP
            )
    folder.mkdir(exist_ok=True)
    for room, lines in rooms.items():
        (folder / f'{room}.md').write_text('\n'.join([*lines, '```', '']))


write_rooms(HERE / 'api' / 'rooms')
