"""The model in the config that MMEngine stores in a checkpoint, read without executing it.

The text is Python, and a checkpoint may come from anywhere.
"""

import ast
from collections.abc import Mapping
from typing import Any

from torch import nn

from .config_parts import type_name

_OTHER_WEIGHTS = ('init_cfg', 'pretrained', 'checkpoint')  # where weights would come from


class StoredConfigError(ValueError):
    """A stored config cannot be used; the message says why."""


def stored_model(text: str) -> dict[str, Any]:
    """Read ``model`` from the text of a config as :meth:`mmengine.config.Config.dump` writes it.

    Args:
        text (str): Assignments of literals, with dicts written as ``dict(...)`` or ``{...}``.

    Returns:
        dict: The model. Without a preprocessor of its own it gets the config's.

    Raises:
        StoredConfigError: If the text is no such config, or has no model.
    """
    try:
        assigned = {
            statement.targets[0].id: _Dicts().visit(statement.value)
            for statement in ast.parse(text).body
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
        }
        wanted = ('model', 'data_preprocessor')
        found = {name: ast.literal_eval(assigned[name]) for name in wanted if name in assigned}
    except (SyntaxError, TypeError, ValueError, RecursionError) as error:
        raise StoredConfigError(f'no config of literals ({error})') from None
    model = found.pop('model', None)
    if not isinstance(model, dict):
        raise StoredConfigError('it has no model = dict(...)')
    return found | model


def build_part(part: Mapping[str, Any], trusted: bool = False) -> nn.Module:
    """Build a part of a model with what mmpretrain registers, without weights.

    MMEngine imports and calls whatever a dotted name stands for, ``os.system`` as well, so that
    types that are not trusted are taken by their last name from what is registered.
    """
    import mmpretrain.models  # noqa: F401  registers the backbones
    from mmpretrain.registry import MODELS

    def cleaned(node: Any) -> Any:
        if isinstance(node, Mapping):
            kept = {key: cleaned(x) for key, x in node.items() if key not in _OTHER_WEIGHTS}
            if 'type' in node and not trusted:
                kept['type'] = registered(type_name(node))
                kept.pop('library', None)  # of ours, where a scope would be imported
                if isinstance(kept.get('stock'), str):
                    kept['stock'] = registered(kept['stock'].rpartition('.')[2])
            return kept
        return type(node)(map(cleaned, node)) if isinstance(node, (list, tuple)) else node

    def registered(name: str) -> str:
        if name in MODELS.module_dict or name in MODELS.parent.module_dict:
            return name
        raise ValueError(f'no package that is imported here registers {name!r}')

    return MODELS.build(cleaned(part))


class _Dicts(ast.NodeTransformer):
    """Replaces ``dict(a=...)`` and ``dict({...})`` by dicts that ``ast.literal_eval`` reads."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        is_dict = isinstance(node.func, ast.Name) and node.func.id == 'dict'
        if not is_dict or not all(isinstance(argument, ast.Dict) for argument in node.args):
            return node  # which literal_eval refuses, as it does keys of None
        items = [item for part in node.args for item in zip(part.keys, part.values, strict=True)]
        items += [(word.arg and ast.Constant(word.arg), word.value) for word in node.keywords]
        return ast.Dict(*map(list, zip(*items, strict=True)) if items else ([], []))
