#!/usr/bin/env python
"""From a collection of titled videos to a manifest for pre-training, as the paper made VideoNet.

tools/curate_videonet.py videos.jsonl work_dirs/videonet --classifier torchvision:resnet50 \\
    --checkpoint resnet50.pth

The stages retrieve, probe, classify, select and manifest each leave a table in the work dir. Given
again, the same command goes on where it was stopped. Nothing is downloaded.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from _arguments import NETWORKS, positive

# Those of vito_mm.curation, which takes seconds to import.
BY_TITLE = ('retrieve', 'probe', 'classify', 'select', 'manifest')
BY_EMBEDDING = ('probe', 'embed', 'select', 'select_by_embedding', 'manifest')


def parse_args(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        fromfile_prefix_chars='@',
    )
    add = parser.add_argument
    add('table', type=Path, help='table with path and title (.parquet, .jsonl, .csv), or a folder')
    add('work_dir', type=Path, help='folder for the tables of the stages and the report')
    add(
        '--stages',
        nargs='+',
        choices=list(dict.fromkeys([*BY_TITLE, *BY_EMBEDDING, 'report'])),
        metavar='STAGE',
        help=f'stages to run, default: {" ".join(BY_TITLE)}, or with --by-embedding '
        f'{" ".join(BY_EMBEDDING)}. A stage reads the table of the one before it in WORK_DIR, the '
        'first one TABLE',
    )
    add('--manifest', type=Path, help='file for pre-training, default: WORK_DIR/manifest.jsonl')
    add('--path-column', default='path', help='column of the table, default: %(default)s')
    add('--title-column', default='title', help='column of the table, default: %(default)s')
    add('--seed', type=int, default=0, help='of all choices, default: %(default)s')

    group = parser.add_argument_group('by title and classifier')
    add = group.add_argument
    add(
        '--taxonomy',
        default='imagenet',
        help='classes and their names: imagenet, or a file, default: %(default)s',
    )
    add('--classes', nargs='+', default=[], help='classes to look for, or @FILE, one per line')
    add('--limit', type=positive, default=5000, help='videos retrieved for a class, default: 5000')
    add(
        '--classifier',
        help='torchvision:NAME, timm:NAME or an mmpretrain config',
    )
    add('--checkpoint', help='weights of --classifier or --backbone')
    add('--frames', type=positive, default=100, help='first frames to classify, default: 100')
    add('--min-frames', type=int, default=1, help='on which the class must be top-1, default: 1')

    group = parser.add_argument_group('by embedding, without labels')
    add = group.add_argument
    add('--by-embedding', metavar='REFERENCE', help='folder of reference images')
    add('--backbone', help='a VITO checkpoint, torchvision:NAME, timm:NAME or an mmpretrain config')
    add('--which', choices=NETWORKS, default='online', help='network of a checkpoint')
    add('--keep', type=positive, help='number of videos to keep')
    add('--fraction', type=float, help='share of the videos to keep, in the place of --keep')
    add('--clusters', type=positive, default=100, help='of the reference, default: %(default)s')

    group = parser.add_argument_group('what else is dropped')
    add = group.add_argument
    add('--min-seconds', type=float, default=10.0, help='shortest video, default: 10')
    add('--check', action='store_true', help='decode every frame to find damage')
    add('--filters', nargs='+', default=[], help="such as 'height>=240' 'label_frames>=3'")
    add(
        '--max-distance',
        type=float,
        default=6,
        help='bits of 64 in which duplicates differ, -1 keeps them, default: 6',
    )
    add('--per-class', type=positive, help='videos of a class to keep at most, default: all')

    group = parser.add_argument_group('how it is run')
    add = group.add_argument
    add('--engine', choices=['local', 'ray'], default='local', help='default: %(default)s')
    add('--workers', type=positive, help='processes (default: cores), or of each Ray actor (1)')
    add('--ray-address', help='Ray cluster to join')
    add('--gpus', type=float, default=0, help='GPUs of each Ray actor, default: 0')
    add('--device', help='of classifier and backbone, default: a GPU if there is one')
    add('--batch-size', type=positive, default=100, help='frames per batch, default: 100')
    add('--rows-per-shard', type=positive, default=500, help='default: %(default)s')
    add('--redo', action='store_true', help='make again what was made with other settings')
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Read the command line and curate.

    Args:
        words (Sequence[str], optional): The command line without its first word. Defaults to that
            of the process.

    Returns:
        int: See :func:`vito_mm.curation.pipeline.run`.
    """
    args = parse_args(words)
    from vito_mm.curation.pipeline import run  # after parsing, which needs no PyTorch

    return run(args, shlex.join([sys.argv[0], *words] if words else sys.argv))


if __name__ == '__main__':
    sys.exit(main())
