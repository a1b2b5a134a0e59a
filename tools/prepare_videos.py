#!/usr/bin/env python
"""Turn a tree of videos into a manifest that training reads; find bad files, make small copies.

Started again, it goes on where it was stopped, and reads new and changed videos only.
"""

import argparse

# Those of vito_mm.videos, which takes seconds to import.
VIDEO_EXTENSIONS = ('.mp4', '.mkv', '.webm', '.avi', '.mov', '.m4v', '.mpg', '.mpeg', '.ts', '.flv')
MAX_PIXELS = 2**27
PRESETS = (
    *('ultrafast', 'superfast', 'veryfast', 'faster', 'fast'),
    *('medium', 'slow', 'slower', 'veryslow'),
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', help='folder of videos, or manifest (.jsonl, .csv, .parquet)')
    parser.add_argument('--out', required=True, help='manifest to write, .jsonl')
    parser.add_argument('--workers', type=int, help='processes; default: the number of cores')
    parser.add_argument(
        '--extensions',
        nargs='+',
        default=VIDEO_EXTENSIONS,
        metavar='EXTENSION',
        help='endings of the files to take from a folder, .tar for archives of frames, .jpg for '
        'images; default: those of videos',
    )
    parser.add_argument(
        '--check', action='store_true', help='decode every frame and compare hashes to find damage'
    )
    parser.add_argument('--force', action='store_true', help='read all videos again')
    parser.add_argument(
        '--time-limit',
        type=float,
        default=3600,
        help='seconds a video may take; 0: any; default: %(default)s',
    )
    parser.add_argument(
        '--max-pixels',
        type=int,
        default=MAX_PIXELS,
        help='largest believable frame; default: %(default)s',
    )
    copies = parser.add_argument_group('small copies (H.264, no sound), which the manifest lists')
    copies.add_argument('--reencode', metavar='DIR', help='folder for the copies')
    copies.add_argument(
        '--short-side',
        type=int,
        default=256,
        help='pixels, at most; default: %(default)s',
    )
    copies.add_argument(
        '--gop',
        type=int,
        default=12,
        help='frames between key frames; 1: all are; default: %(default)s',
    )
    copies.add_argument(
        '--crf',
        type=int,
        default=23,
        help='quality of x264, 0 is best; default: %(default)s',
    )
    copies.add_argument(
        '--preset',
        choices=PRESETS,
        default='medium',
        metavar='PRESET',
        help='speed of x264, ultrafast to veryslow; default: %(default)s',
    )
    copies.add_argument(
        '--fastdecode', action='store_true', help='cheaper to decode, larger (no CABAC, no filter)'
    )
    copies.add_argument('--no-b-frames', action='store_true', help='frames in order only')
    return parser.parse_args()


def main() -> None:
    """Prepare the videos and say what they are like."""
    args = parse_args()

    from vito_mm.videos.prepare.command import run

    raise SystemExit(run(**vars(args)))


if __name__ == '__main__':
    main()
