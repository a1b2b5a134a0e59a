"""Tables of templates that lead from one library's names of parameters to another's and back."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

Weights = Mapping[str, Tensor]

HEADS = frozenset(('fc', 'head', 'heads', 'head_dist', 'classifier', 'mask_token'))
"""First parts of names next to a backbone's that are none of its own."""

_FIELD = re.compile(r'\{(2?)([a-z]+)(?:\+(\d))?\}')


class Template:
    """A pattern of keys such as ``'layers.{i+1}.downsample.{p}'``.

    ``{p}`` is any name without a dot, ``{last}`` the number of the last stage, any other field a
    number from 0, which may be doubled and shifted: ``{2i+1}``.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._numbers: dict[str, tuple[int, int]] = {}  # factor and shift of each
        pattern, end = '', 0
        for found in _FIELD.finditer(text):
            pattern += re.escape(text[end : found.start()])
            end, name = found.end(), found[2]
            is_new = f'(?P<{name}>' not in pattern
            kind = '[^.]+' if name == 'p' else '[0-9]+'
            pattern += f'(?P<{name}>{kind})' if is_new else f'(?P={name})'
            if name != 'p':
                self._numbers[name] = int(found[1] or 1), int(found[3] or 0)
        self._pattern = re.compile(pattern + re.escape(text[end:]))

    def match(self, key: str) -> dict[str, str | int] | None:
        """Read the fields off a key."""
        found = self._pattern.fullmatch(key)
        if found is None:
            return None
        fields: dict[str, str | int] = found.groupdict()
        for name, (factor, shift) in self._numbers.items():
            fields[name], rest = divmod(int(fields[name]) - shift, factor)
            if rest or fields[name] < 0:
                return None
        return fields

    def fill(self, fields: Mapping[str, str | int]) -> str:
        """Write a key with these fields."""

        def text(found: re.Match) -> str:
            value = fields[found[2]]
            if found[2] == 'p':
                return value
            return str(value * int(found[1] or 1) + int(found[3] or 0))

        return _FIELD.sub(text, self.text)


@dataclass(frozen=True)
class Rule:
    """A template of a library's keys, that of mmpretrain's, and the way from value to value."""

    theirs: Template
    ours: Template
    to_ours: Callable[[Tensor], Tensor] | None = None
    to_theirs: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Naming:
    """The names that a library gives to the parts of a family of backbones.

    Attributes:
        name (str): For messages, such as ``'timm'``.
        rules (tuple[Rule, ...]): The first one that fits a key holds.
    """

    name: str
    rules: tuple[Rule, ...]

    def to_ours(self, weights: Weights) -> dict[str, Tensor]:
        """Give weights, under any prefixes, mmpretrain's names; what is unknown keeps its own."""
        sides = [(rule, rule.theirs, rule.ours, rule.to_ours) for rule in self.rules]
        return _converted(weights, sides)

    def to_theirs(self, weights: Weights) -> dict[str, Tensor]:
        """Give weights that have mmpretrain's names those of the library."""
        sides = [(rule, rule.ours, rule.theirs, rule.to_theirs) for rule in self.rules]
        return _converted(weights, sides)

    def count(self, keys: Iterable[str]) -> int:
        """Number of keys, without a prefix, that there is a rule for."""
        return sum(any(rule.theirs.match(key) for rule in self.rules) for key in keys)

    @cached_property
    def parts(self) -> frozenset[str]:
        """First parts of the names, heads left out, numbers as ``#``."""
        firsts = (rule.theirs.text.partition('.')[0] for rule in self.rules)
        return frozenset(part_of(_FIELD.sub('0', first)) for first in firsts) - HEADS


def _converted(weights: Weights, sides: list[tuple]) -> dict[str, Tensor]:
    found: list[tuple[str, str, tuple, dict]] = []
    last: dict[str, int] = {}  # stage under each prefix
    for key in weights:
        for cut in _cuts(key):
            matches = ((side, side[1].match(key[cut:])) for side in sides)
            side, fields = next((m for m in matches if m[1] is not None), (None, None))
            if side is not None:
                prefix = key[:cut]
                found.append((key, prefix, side, fields))
                if side[0].ours.text.startswith('stages.'):
                    last[prefix] = max(last.get(prefix, 0), fields['i'])
                break
        else:
            found.append((key, '', None, {}))
    converted = {}
    for key, prefix, side, fields in found:
        value, end = weights[key], last.get(prefix, 0)
        if side is None or fields.get('last', end) != end:
            converted[key] = value
        else:
            name = prefix + side[2].fill(dict(fields, last=end))
            converted[name] = side[3](value) if side[3] else value
    return converted


def part_of(key: str) -> str:
    """First part of a key, numbers as ``#``."""
    return re.sub('[0-9]+', '#', key.partition('.')[0])


def _cuts(key: str) -> Iterator[int]:
    """Places where the name may begin after a prefix, from the left."""
    yield 0
    yield from (dot.end() for dot in re.finditer(r'\.', key))
