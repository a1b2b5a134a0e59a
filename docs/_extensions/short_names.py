"""Short names in docstrings mean what they mean in the module that has the docstring.

``Task`` in a module that imports ``vito_mm.transfer.tasks.Task`` is that class, whatever other
``Task`` is documented, and wherever it is documented: Sphinx alone takes any that ends alike.
"""

import sys
from importlib import import_module
from typing import Any

from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

MISSING = object()


def find(module: str, name: str) -> Any:
    """An object by its name as seen from a module, MISSING if there is none."""
    found = sys.modules.get(module, MISSING)
    for part in name.split('.'):
        found = getattr(found, part, MISSING)
    return found


def resolve(full: str) -> Any:
    """An object by its full name, also where a package passes it on; MISSING if there is none."""
    parts = full.split('.')
    for cut in range(len(parts) - 1, 0, -1):
        module = '.'.join(parts[:cut])
        if module in sys.modules:
            return find(module, '.'.join(parts[cut:]))
    return MISSING


def home_of(node: addnodes.pending_xref) -> str:
    """Module whose docstring holds a reference."""
    parent = node.parent
    while parent is not None:
        if isinstance(parent, addnodes.desc) and parent[0].get('fullname'):
            module, name = parent[0]['module'], parent[0]['fullname']
            return getattr(find(module, name), '__module__', None) or module
        parent = parent.parent
    return node.get('py:module') or ''


class ShortNames(SphinxPostTransform):
    """Replaces the targets of references before Sphinx looks for them."""

    default_priority = 5

    def run(self, **kwargs: Any) -> None:
        """Replace them."""
        objects = self.env.domains.python_domain.objects
        for node in self.document.findall(addnodes.pending_xref):
            name = node['reftarget'].lstrip('.')
            if node.get('refdomain') != 'py' or name in objects or not name:
                continue
            found = find(home_of(node), name)
            if found is MISSING and (found := resolve(name)) is MISSING:
                continue
            last = name.rpartition('.')[2]
            for full in objects:
                if full.rpartition('.')[2] == last and resolve(full) is found:
                    node['reftarget'] = full
                    break


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform."""
    import_module('vito_mm')
    app.add_post_transform(ShortNames)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
