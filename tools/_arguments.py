"""Arguments that several tools share, without torch: help and errors come at once.

An option has the same spelling, default and meaning in every tool that has it: :data:`SHARED`.
"""

import argparse
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

NETWORKS = ('online', 'target')
"""Networks of a checkpoint that ``--which`` can name."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Wraps the description but its commands, and ends the help of an option with its default."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip().split('\n\n')
        return '\n\n'.join(
            text if text.startswith('tools/') else textwrap.fill(text, width) for text in paragraphs
        )

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or '', action.default
        is_flag = default is None or isinstance(default, bool) or default in ('', [])
        if is_flag or default == argparse.SUPPRESS or not action.option_strings:
            return text
        shown = ' '.join(map(str, default)) if isinstance(default, (list, tuple)) else str(default)
        return f'{text} (default: {shown.replace("%", "%%")})'


class Parser(argparse.ArgumentParser):
    """A parser whose help is that of :class:`HelpFormatter`, its sub-commands' too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{'formatter_class': HelpFormatter, **kwargs})


class Extend(argparse.Action):
    """Adds up the values of an option that is given more than once, in the place of a default."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str],
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*(() if before is self.default else before), *values])


class KeyValues(Extend):
    """Collects ``key=value`` words for ``vito_mm.launch.parse_options``."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str],
        option_string: str | None = None,
    ) -> None:
        last = ''
        for text in values:
            if '=' not in text:
                parser.error(
                    f'{option_string}: {text!r} is no key=value. A value with a blank needs '
                    f'quotes: "{last} {text}"'
                )
            last = text
        super().__call__(parser, namespace, values, option_string)


def at_least(least: float, kind: type = int) -> Callable[[str], Any]:
    """Make a type of arguments: numbers that are not below a bound."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not value >= least:
            raise argparse.ArgumentTypeError(f'must be {least} or more, got {text}')
        return value

    parse.__name__ = kind.__name__  # argparse tells it of what is no number
    return parse


positive = at_least(1)
natural = at_least(0)


def picture(*endings: str) -> Callable[[str], Path]:
    """Make a type of arguments: a file to write that ends in one of some endings."""

    def parse(text: str) -> Path:
        if not text.lower().endswith(endings):
            raise argparse.ArgumentTypeError(f'{text} must end in {" or ".join(endings)}')
        return Path(text)

    return parse


SHARED: dict[str, dict[str, Any]] = {
    '--backbone': dict(
        metavar='NETWORK',
        help='timm:NAME, torchvision:NAME or a config of mmpretrain, FILE.py (default: as the '
        'file with the weights tells)',
    ),
    '--batch-size': dict(type=positive, metavar='N', help='images at a time'),
    '--cfg-options': dict(
        nargs='+',
        action=KeyValues,
        metavar='KEY=VALUE',
        help='settings that override the config, e.g. train_dataloader.batch_size=32',
    ),
    '--data': dict(metavar='PLACE'),
    '--device': dict(help='such as cuda:1 or cpu (default: a GPU if there is one)'),
    '--out': dict(type=Path, metavar='FILE', help='file to write'),
    '--evaluation': dict(
        type=Path,
        metavar='FOLDER',
        help='folder of the report on all tests of all checkpoints, to which results are added',
    ),
    '--seed': dict(type=natural, default=0, metavar='N', help='seed of all that is random'),
    '--size': dict(type=positive, default=224, metavar='PIXELS', help='side of the images'),
    '--videos': dict(
        metavar='PLACE', help='folder of videos, or manifest (.jsonl, .csv, .parquet)'
    ),
    '--which': dict(choices=NETWORKS, default='online', help='network of a checkpoint'),
    '--work-dir': dict(metavar='FOLDER', help='folder for logs and checkpoints'),
    '--workers': dict(
        type=natural, metavar='N', help='processes, 0: this one (default: the cores)'
    ),
    'config': dict(
        metavar='CONFIG',
        help='file, one of ours by its name, such as pretrain_r50.py, or PACKAGE::FOLDER/FILE.py',
    ),
    'checkpoint': dict(metavar='CHECKPOINT', help='checkpoint of a training, or an exported one'),
}
"""Settings of ``add_argument`` for what more than one tool has."""


def add_shared(
    parser: argparse._ActionsContainer, *names: str, old: Sequence[str] = (), **changes: Any
) -> None:
    """Add arguments of :data:`SHARED`.

    Args:
        parser: Parser or group.
        *names: Arguments.
        old: Earlier spellings, which are taken and not shown.
        **changes: Other settings than the shared ones.
    """
    for name in names:
        settings = SHARED[name] | changes
        action = parser.add_argument(name, **settings)
        for spelling in old:
            settings = {k: v for k, v in settings.items() if k not in ('required', 'metavar')}
            settings.update(dest=action.dest, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
            parser.add_argument(spelling, **settings)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that OpenMMLab's ``train.py`` and ``test.py`` have in common.

    Both spellings of the local rank are taken: old PyTorch launchers pass ``--local_rank``, newer
    ones ``--local-rank``, torchrun sets the environment variable.
    """
    add_shared(
        parser, '--work-dir', help='folder for logs and checkpoints (default: work_dirs/CONFIG)'
    )
    add_shared(parser, '--cfg-options')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what has started the processes',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def given_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> dict[str, Any]:
    """Options that are not at their defaults, by the name that ``args`` has for them."""
    return {
        action.dest: getattr(args, action.dest)
        for action in parser._actions
        if action.option_strings and action.help != argparse.SUPPRESS
        if getattr(args, action.dest, action.default) != action.default
    }


def option_words(parser: argparse.ArgumentParser, given: Mapping[str, Any]) -> list[str]:
    """Words of a command line that give options, see :func:`given_options`."""
    words: list[str] = []
    for action in parser._actions:
        if action.option_strings and action.dest in given and action.help != argparse.SUPPRESS:
            value = given[action.dest]
            values = value if isinstance(value, (list, tuple)) else [value]
            words += [action.option_strings[0], *map(str, () if value is True else values)]
    return words


def cores() -> int:
    """Number of processors that this process may use, at most 8."""
    return min(8, len(os.sched_getaffinity(0)))
