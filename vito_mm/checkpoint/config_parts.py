"""Parts of a config: where they stand, of what type they are, what they load."""

from collections.abc import Iterator, Mapping
from typing import Any


def parts_of(node: Any, place: str) -> Iterator[tuple[str, Mapping]]:
    """Every dict of a config, an outer one before those in it.

    Args:
        node (Any): A part of a config.
        place (str): Where it stands, such as ``'model'``.

    Yields:
        tuple[str, Mapping]: Place, such as ``'model.neck.0'``, and what stands there.
    """
    if isinstance(node, Mapping):
        yield place, node
        for name, value in node.items():
            yield from parts_of(value, f'{place}.{name}')
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from parts_of(value, f'{place}.{index}')


def type_name(part: Any) -> str:
    """Name of the class that a part of a config stands for.

    Args:
        part (Any): A part of a config, with the class or its name as ``type``.

    Returns:
        str: The name without its scope; empty where there is no type.
    """
    kind = part.get('type') if isinstance(part, Mapping) else None
    return kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', '')


def is_pretrained(init_cfg: Mapping) -> bool:
    """Whether an ``init_cfg`` loads weights from a file."""
    return type_name(init_cfg) in ('Pretrained', 'PretrainedInit')


def init_cfgs(part: Mapping) -> list[Mapping]:
    """The ``init_cfg`` of a part as a list, which MMEngine takes as well."""
    listed = part.get('init_cfg') or []
    return list(listed) if isinstance(listed, (list, tuple)) else [listed]
