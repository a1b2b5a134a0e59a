#!/usr/bin/env python
"""Turn a tree of videos into a manifest that training reads; find bad files, make small copies.

Started again, it goes on where it was stopped, and reads new and changed videos only.
"""

import argparse
import sys

from _arguments import Parser, add_shared, positive

# Those of vito_mm.videos, which takes seconds to import.
VIDEO_EXTENSIONS = ('.mp4', '.mkv', '.webm', '.avi', '.mov', '.m4v', '.mpg', '.mpeg', '.ts', '.flv')
MAX_PIXELS = 2**27
PRESETS = (
    *('ultrafast', 'superfast', 'veryfast', 'faster', 'fast'),
    *('medium', 'slow', 'slower', 'veryslow'),
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add(
        'source',
        metavar='VIDEOS',
        help='folder or .tar of videos, or manifest (.jsonl, .csv, .parquet)',
    )
    add_shared(parser, '--out', type=str, required=True, help='manifest to write, .jsonl')
    add_shared(parser, '--workers', type=positive, help='processes (default: the cores)')
    add(
        '--extensions',
        nargs='+',
        default=VIDEO_EXTENSIONS,
        metavar='EXTENSION',
        help='endings of the files to take from a folder, .tar for archives of frames or videos, '
        '.jpg for images',
    )
    add('--check', action='store_true', help='decode every frame and compare hashes to find damage')
    add('--force', action='store_true', help='read all videos again')
    add(
        '--time-limit',
        type=float,
        default=3600,
        metavar='SECONDS',
        help='time that a video may take, 0 for any',
    )
    add(
        '--max-pixels',
        type=int,
        default=MAX_PIXELS,
        metavar='PIXELS',
        help='width x height of the largest believable frame',
    )

    copies = parser.add_argument_group('small copies (H.264, no sound), which the manifest lists')
    add = copies.add_argument
    add('--reencode', metavar='FOLDER', dest='copies', help='folder for the copies')
    add('--short-side', type=int, default=256, metavar='PIXELS', help='shorter side at most')
    add('--gop', type=int, default=12, metavar='N', help='frames between key frames, 1: all are')
    add('--crf', type=int, default=23, metavar='N', help='quality of x264, 0 is best')
    add(
        '--preset',
        choices=PRESETS,
        default='medium',
        metavar='PRESET',
        help='speed of x264, ultrafast to veryslow',
    )
    add(
        '--fastdecode',
        action='store_true',
        dest='fast_decode',
        help='cheaper to decode, larger (no CABAC, no filter)',
    )
    add('--no-b-frames', action='store_false', dest='b_frames', help='frames in order only')
    return parser.parse_args()


def main() -> int:
    """Prepare the videos and say what they are like.

    Returns:
        int: 0 if the job was finished, bad videos or not; 1 if it had to stop; 2 if an argument is
        wrong; 130 after Ctrl-C or SIGTERM.
    """
    args = vars(parse_args())

    from vito_mm.utils.worker_pool import stopped_by_signals
    from vito_mm.videos.prepare.preparation import PreparationStopped, prepare_videos
    from vito_mm.videos.prepare.reencoding import Encoding

    settings = {name: args.pop(name) for name in Encoding.__dataclass_fields__}
    with stopped_by_signals():
        try:
            summary = prepare_videos(encoding=Encoding(**settings), **args)
        except KeyboardInterrupt:
            again = 'stopped; what is done is kept. Run the same command again to go on'
            print(again, file=sys.stderr)
            return 130
        except (PreparationStopped, ValueError, OSError, ImportError) as error:
            print(f'error: {error}', file=sys.stderr)
            return 1 if isinstance(error, PreparationStopped) else 2
    print(summary)
    if hint := summary.hint():
        print(hint)
    if summary.num_bad:
        print(f'{summary.num_bad} videos are bad: rows with "verdict": "bad" in {args["out"]}')
    print(f'manifest {args["out"]}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
