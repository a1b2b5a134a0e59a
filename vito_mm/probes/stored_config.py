"""The model in the config that MMEngine stores in a checkpoint, read without executing it.

The text is Python, and a checkpoint may come from anywhere.
"""

import ast
from typing import Any


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
            statement.targets[0].id: statement.value
            for statement in ast.parse(text).body
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
        }
    except (SyntaxError, ValueError, RecursionError) as error:
        raise StoredConfigError(f'not a config ({error})') from None
    model = _value(assigned['model']) if 'model' in assigned else None
    if not isinstance(model, dict):
        raise StoredConfigError('it has no model = dict(...)')
    if 'data_preprocessor' in assigned:
        model.setdefault('data_preprocessor', _value(assigned['data_preprocessor']))
    return model


def _value(node: ast.expr) -> Any:
    """Value of a literal, where ``dict(a=...)`` and ``dict({...})`` count as one."""
    if isinstance(node, ast.Call):
        is_dict = isinstance(node.func, ast.Name) and node.func.id == 'dict'
        if not is_dict or not all(isinstance(argument, ast.Dict) for argument in node.args):
            raise StoredConfigError(f'line {node.lineno} calls something')
        if any(keyword.arg is None for keyword in node.keywords):
            raise StoredConfigError(f'line {node.lineno} unpacks something')
        found = {keyword.arg: _value(keyword.value) for keyword in node.keywords}
        return {k: v for argument in node.args for k, v in _value(argument).items()} | found
    if isinstance(node, ast.Dict):
        if None in node.keys:
            raise StoredConfigError(f'line {node.lineno} unpacks something')
        return {_value(k): _value(v) for k, v in zip(node.keys, node.values, strict=True)}
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [_value(element) for element in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError) as error:
        raise StoredConfigError(f'line {node.lineno} is no literal ({error})') from None
