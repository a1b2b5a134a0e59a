#!/usr/bin/env python
"""Draw the nearest neighbours of frames: what the network of a checkpoint considers similar."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _arguments import Parser, add_shared, cores, picture, positive

POOLINGS = dict(
    average='mean of the last feature map', attention="the checkpoint's own attention pooling"
)


def main() -> None:
    """Parse the command line, write the picture and say what is in it."""
    args = parse_arguments()

    from vito_mm.checkpoint import CheckpointError

    sys.stdout.reconfigure(errors='backslashreplace')  # file names need not be text
    sys.stderr.reconfigure(errors='backslashreplace')
    try:
        print(show(args))
    except (CheckpointError, OSError, ValueError, RuntimeError) as error:
        raise SystemExit(f'tools/show_neighbours.py: {error}') from None
    print(f'written to {args.out}')


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    add_shared(parser, 'checkpoint', help='checkpoint of pre-training, or any file with a ResNet')
    add = parser.add_argument
    add(
        *('--videos', '--gallery'),
        dest='gallery',
        required=True,
        metavar='PLACE',
        help='where to look: folder of videos or images, or manifest (.jsonl, .csv, .parquet). A '
        'sub-folder of the folder, or class_name or label of the manifest, is the class',
    )
    add(
        '--queries',
        nargs='+',
        metavar='PLACE',
        help='what to look for: folders, manifests, videos, images (default: some of the gallery)',
    )
    add_shared(
        parser,
        '--out',
        type=picture('.png'),
        required=True,
        metavar='PNG',
        help='picture to write',
    )
    for name, default, text in (
        ('--k', 8, 'neighbours, each of another video'),
        ('--num-queries', 8, 'queries, if there are more'),
        ('--frames', 3, 'frames of each gallery video'),
        ('--max-gallery', 5000, 'videos of the gallery, if there are more'),
    ):
        add(name, type=positive, default=default, metavar='N', help=text)
    add_shared(parser, '--size')
    add(
        '--pooling',
        choices=POOLINGS,
        default='average',
        help=f'features: {"; ".join(f"{name}, {text}" for name, text in POOLINGS.items())}',
    )
    add(
        '--same-video',
        action='store_true',
        help="let frames of the query's own video count, which are near by themselves",
    )
    add('--no-labels', action='store_true', help='sub-folders are no classes')
    add_shared(parser, '--which')
    add_shared(parser, '--backbone', old=['--config'])
    add_shared(parser, '--seed')
    add_shared(
        parser,
        '--workers',
        type=positive,
        help='processes that decode (default: the cores, at most 8)',
    )
    add_shared(parser, '--device')
    return parser.parse_args()


def show(args: argparse.Namespace) -> str:
    """Draw the picture; returns what is in it."""
    from vito_mm.probes.loading import load_encoder
    from vito_mm.visualization.canvas import write_png
    from vito_mm.visualization.neighbours import (
        choose,
        draw_neighbours,
        nearest,
        read_frames,
        score,
    )

    layer = dict(average='pooled', attention='neck')[args.pooling]
    encoder = load_encoder(
        args.checkpoint,
        args.which,
        args.backbone,
        needs_attention=layer == 'neck',
        device=args.device,
    )
    workers = args.workers or cores()

    def read(rows: Sequence, labels: Sequence, count: int, frames: int, option: str) -> Any:
        chosen = choose(labels, count, args.seed)
        found, errors = read_frames(
            *(encoder, [rows[i] for i in chosen], [labels[i] for i in chosen]),
            *(args.size, frames, layer, workers),
        )
        for error in errors:
            print(f'{option}: {error}', file=sys.stderr)
        if not len(found):
            raise ValueError(f'{option} names no file that can be read')
        return found

    gallery_rows = videos([args.gallery], args.no_labels)
    query_rows = videos(args.queries, args.no_labels) if args.queries else gallery_rows
    gallery = read(*gallery_rows, args.max_gallery, args.frames, '--gallery')
    queries = read(*query_rows, args.num_queries, 1, '--queries' if args.queries else '--gallery')
    found = nearest(queries, gallery, args.k, args.same_video)
    if not any(found):
        raise ValueError(
            'there is no neighbour, as --gallery holds nothing but the videos of the queries; '
            '--same-video lets their own frames count'
        )
    num_videos = len(set(gallery.videos()))
    summary = (
        f'{len(found)} queries, {num_videos:,} of {len(gallery_rows[0]):,} videos or images in the '
        f'gallery, {len(gallery):,} frames. Cosine of features ({POOLINGS[args.pooling]}, '
        f'{args.size} px); between any query and any frame of the gallery it is '
        f'{float((queries.features @ gallery.features.T).mean()):.2f} on average.'
    )
    if result := score(queries, gallery, found, args.same_video):
        summary += (
            f' {result.share:.0%} of {result.count} neighbours are of the class of the query, '
            f'{result.chance:.0%} would be by chance.'
        )
    title = f'Nearest neighbours: {Path(args.checkpoint).name}, {args.which} network'
    write_png(draw_neighbours(queries, gallery, found, title, summary), args.out)
    return summary


def videos(
    sources: Sequence[str], no_labels: bool
) -> tuple[list[Mapping[str, Any]], list[str | None]]:
    """Rows of all sources, and their classes."""
    from vito_mm.visualization.clips import rows_of
    from vito_mm.visualization.neighbours import labels_of

    rows, labels = [], []
    for source in sources:
        found = list(rows_of(source))
        folder = source if os.path.isdir(source) else None
        rows += found
        labels += [None] * len(found) if no_labels else labels_of(found, folder)
    return rows, labels


if __name__ == '__main__':
    main()
