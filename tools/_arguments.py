"""Arguments that several tools share, without torch: help and errors come at once."""

import argparse
import os
from collections.abc import Sequence

NETWORKS = ('online', 'target')
"""Networks of a checkpoint that ``--which`` can name."""


class KeyValues(argparse.Action):
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
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or ()), *values])


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        metavar='KEY=VALUE',
        help='settings that override the config, e.g. train_dataloader.batch_size=32',
    )


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that OpenMMLab's ``train.py`` and ``test.py`` have in common.

    Both spellings of the local rank are taken: old PyTorch launchers pass ``--local_rank``, newer
    ones ``--local-rank``, torchrun sets the environment variable.
    """
    parser.add_argument('--work-dir', help='folder for logs and checkpoints')
    add_options(parser)
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='launcher'
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def positive(text: str) -> int:
    """Parse an integer of at least 1."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f'must be 1 or more, got {text}')
    return value


def natural(text: str) -> int:
    """Parse an integer of at least 0."""
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f'must be 0 or more, got {text}')
    return value


def cores() -> int:
    """Number of processors that this process may use, at most 8."""
    return min(8, len(os.sched_getaffinity(0)))
