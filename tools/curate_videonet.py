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

from _arguments import Parser, add_shared, positive

# Those of vito_mm.curation, which takes seconds to import.
BY_TITLE = ('retrieve', 'probe', 'classify', 'select', 'manifest')
BY_EMBEDDING = ('probe', 'embed', 'select', 'select_by_embedding', 'manifest')


def parse_args(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__, fromfile_prefix_chars='@')
    add = parser.add_argument
    add(
        'table',
        type=Path,
        metavar='TABLE',
        help='table with path and title (.parquet, .jsonl, .csv), or a folder',
    )
    add(
        'work_dir',
        type=Path,
        metavar='WORK_DIR',
        help='folder for the tables of the stages and the report',
    )
    add(
        '--stages',
        nargs='+',
        choices=list(dict.fromkeys([*BY_TITLE, *BY_EMBEDDING, 'report'])),
        metavar='STAGE',
        help='stages to run; each reads the table of the one before it in WORK_DIR, the first one '
        f'TABLE (default: {" ".join(BY_TITLE)}, or by embedding {" ".join(BY_EMBEDDING)})',
    )
    add(
        '--manifest',
        type=Path,
        metavar='FILE',
        help='list for pre-training to write (default: WORK_DIR/manifest.jsonl)',
    )
    add('--path-column', default='path', metavar='NAME', help='column of the table')
    add('--title-column', default='title', metavar='NAME', help='column of the table')
    add_shared(parser, '--seed')

    group = parser.add_argument_group('by title and classifier')
    add = group.add_argument
    add(
        '--taxonomy',
        default='imagenet',
        metavar='FILE',
        help='classes and their names, or imagenet',
    )
    add(
        '--classes',
        nargs='+',
        default=[],
        metavar='CLASS',
        help='classes to look for, or @FILE, one per line',
    )
    add('--limit', type=positive, default=5000, metavar='N', help='videos retrieved for a class')
    add(
        '--classifier',
        metavar='NETWORK',
        help='timm:NAME, torchvision:NAME or a config of mmpretrain, FILE.py',
    )
    add('--checkpoint', metavar='CHECKPOINT', help='weights of --classifier or --backbone')
    add('--frames', type=positive, default=100, metavar='N', help='first frames to classify')
    add(
        '--min-frames',
        type=int,
        default=1,
        metavar='N',
        help='frames on which the class must be top-1',
    )

    group = parser.add_argument_group('by embedding, without labels')
    add = group.add_argument
    add('--by-embedding', metavar='FOLDER', help='reference images')
    add_shared(
        group,
        '--backbone',
        help='a VITO checkpoint, timm:NAME, torchvision:NAME or a config of mmpretrain, FILE.py',
    )
    add_shared(group, '--which')
    add_shared(group, '--size', help='side of the squares that the backbone sees')
    add('--keep', type=positive, metavar='N', help='number of videos to keep')
    add(
        '--fraction',
        type=float,
        metavar='SHARE',
        help='of the videos to keep, within 0 and 1, in the place of --keep',
    )
    add('--clusters', type=positive, default=100, metavar='N', help='clusters of the reference')

    group = parser.add_argument_group('what else is dropped')
    add = group.add_argument
    add('--min-seconds', type=float, default=10.0, metavar='SECONDS', help='length of the shortest')
    add('--check', action='store_true', help='decode every frame to find damage')
    add(
        '--filters',
        nargs='+',
        default=[],
        metavar='FILTER',
        help="such as 'height>=240' 'label_frames>=3'",
    )
    add(
        '--max-distance',
        type=float,
        default=6,
        metavar='BITS',
        help='of 64 in which duplicates differ at most, -1 keeps them',
    )
    add('--per-class', type=positive, metavar='N', help='videos of a class at most (default: all)')

    group = parser.add_argument_group('how it is run')
    add = group.add_argument
    add('--engine', choices=['local', 'ray'], default='local', help='what runs the stages')
    add_shared(
        group,
        '--workers',
        type=positive,
        help='processes (default: the cores), or cores of each Ray actor (default: 1)',
    )
    add('--ray-address', metavar='ADDRESS', help='Ray cluster to join')
    add('--gpus', type=float, default=0, metavar='N', help='GPUs of each Ray actor')
    add_shared(group, '--device')
    add_shared(group, '--batch-size', default=100)
    add('--rows-per-shard', type=positive, default=500, metavar='N', help='videos of a shard')
    add(
        '--time-limit',
        type=float,
        default=600,
        metavar='SECONDS',
        help='time that a stage may take to read a video, 0 for any',
    )
    add(
        '--redo',
        action='store_true',
        help='make again what was made with other settings, and the stages of --stages',
    )
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
