#!/usr/bin/env python
"""Draw where the attention of a checkpoint lies: frames of videos in a strip, or a video over it.

VIDEO is a video, an image, or a folder or tar of frames.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from _arguments import SHARED, Parser, add_shared, at_least, picture, positive

if TYPE_CHECKING:
    from vito_mm.probes.encoder import Encoder

BATCH = 32  # frames of a video that are decoded and looked at together


def main() -> None:
    """Parse the command line, write the picture or video and say what is in it."""
    args = parse_arguments()
    sys.stdout.reconfigure(errors='backslashreplace')  # file names need not be text
    sys.stderr.reconfigure(errors='backslashreplace')
    from vito_mm.checkpoint import CheckpointError
    from vito_mm.probes.loading import load_encoder
    from vito_mm.videos import VideoReadError

    try:
        encoder = load_encoder(
            args.checkpoint, args.which, args.backbone, needs_attention=True, device=args.device
        )
        print(video(args, encoder) if args.out.suffix.lower() == '.mp4' else strip(args, encoder))
    except (CheckpointError, VideoReadError, OSError, ValueError) as error:
        raise SystemExit(f'tools/show_attention.py: {error}') from None
    print(f'written to {args.out}')


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add_shared(parser, 'checkpoint', help='checkpoint of pre-training with attention pooling')
    add('files', nargs='*', metavar='VIDEO', help='one, or several for a PNG')
    add_shared(
        parser,
        '--videos',
        help=f'{SHARED["--videos"]["help"]}: some of these in the place of VIDEO',
    )
    add('--num-videos', type=positive, default=4, metavar='N', help='how many of --videos')
    add_shared(
        parser,
        '--out',
        type=picture('.png', '.mp4'),
        default=Path('attention.png'),
        metavar='PNG|MP4',
        help='picture or video to write',
    )
    add('--frames', type=positive, default=8, metavar='N', help='frames per video in the PNG')
    add(
        '--fps',
        type=at_least(0.1, float),
        default=25,
        metavar='RATE',
        help='frames per second of the MP4',
    )
    add('--start', type=float, default=0, metavar='SECONDS', help='begin of the part to show')
    add('--end', type=float, metavar='SECONDS', help='its end (default: that of the video)')
    add_shared(parser, '--size', type=at_least(32))
    add_shared(parser, '--which')
    add_shared(parser, '--backbone', old=['--config'])
    add_shared(parser, '--seed', help='seed of the choice among --videos')
    add_shared(parser, '--device')
    args = parser.parse_args()
    if bool(args.files) == bool(args.videos):
        parser.error('name what to draw: VIDEO, or a folder or manifest by --videos')
    if args.out.suffix.lower() == '.mp4' and len(args.files) != 1:
        parser.error(
            f'an MP4 shows one video, got {len(args.files) or args.videos}: write a PNG, or '
            'one MP4 for each'
        )
    return args


def strip(args: argparse.Namespace, encoder: 'Encoder') -> str:
    """Draw frames of the videos with their masks; returns what is in it."""
    from vito_mm.videos import frames
    from vito_mm.visualization.canvas import write_png
    from vito_mm.visualization.clips import read_some, rows_of
    from vito_mm.visualization.strips import draw_strip

    view = frames.evaluation_view(args.size)
    if args.videos:
        found = rows_of(args.videos)
        clips, errors = read_some(
            found,
            args.num_videos,
            lambda one: frames.spread(one, args.frames, view).distinct(),
            args.seed,
        )
        print(*errors, sep='\n', end='\n' if errors else '', file=sys.stderr)
        if not clips:
            raise ValueError(f'none of {len(found)} videos of {args.videos} can be read')
    else:
        rows = [row(args, path) for path in args.files]
        clips = [frames.spread(each, args.frames, view).distinct() for each in rows]
    masks = [encoder.masks(clip.frames) for clip in clips]
    write_png(draw_strip(clips, masks, title(args)), args.out)
    return f'frames: {sum(len(clip.frames) for clip in clips)}, videos: {len(clips)}'


def video(args: argparse.Namespace, encoder: 'Encoder') -> str:
    """Write the video with its masks; returns what is in it."""
    from vito_mm.videos import frames
    from vito_mm.videos.writing import write_video
    from vito_mm.visualization.strips import draw_side_by_side

    path, view = args.files[0], frames.evaluation_view(args.size)
    span = []

    def note_span(start: float, end: float) -> np.ndarray:
        span.extend((start, end))
        return np.array([start])

    frames.read(row(args, path), note_span, view)
    start, end = span
    times = start + np.arange(max(1, int(np.ceil((end - start) * args.fps - 1e-6)))) / args.fps
    print(f'frames: {len(times)}, {args.fps:g} a second', flush=True)
    name = f'{title(args)}: {Path(path).name}'

    def pictures() -> Iterator[np.ndarray]:
        for first in range(0, len(times), BATCH):
            wanted = times[first : first + BATCH]
            clip = frames.read(row(args, path), lambda *_, wanted=wanted: wanted, view).distinct()
            masks = encoder.masks(clip.frames)
            # A frame may be on screen at several of the times.
            shown = np.searchsorted(clip.times, wanted + 1e-4, side='right') - 1
            for time, index in zip(wanted, shown.clip(0), strict=True):
                of_frame = {scale: mask[index] for scale, mask in masks.items()}
                yield draw_side_by_side(clip.frames[index], time, of_frame, name)

    count = write_video(args.out, pictures(), args.fps)
    return f'{count / args.fps:.2f} s from {start:.2f} to {end:.2f} s'


def row(args: argparse.Namespace, path: str) -> dict:
    """What to read of a video."""
    return dict(path=path, start=args.start, end=args.end)


def title(args: argparse.Namespace) -> str:
    """What the picture shows."""
    return f'Attention of {Path(args.checkpoint).name}, {args.which} network, {args.size} px'


if __name__ == '__main__':
    main()
