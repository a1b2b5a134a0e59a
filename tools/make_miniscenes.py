"""Make the embedded data: videos, and the same world as ADE20K, VOC, COCO, LVIS and a probe."""

import argparse
import sys
from pathlib import Path
from typing import Any

from _arguments import Parser, add_shared, picture, positive

PRESETS = ('attention', 'demo', 'study', 'study_small', 'tiny')
TASKS = ('videos', 'ade20k', 'voc', 'coco', 'lvis', 'probe', 'davis')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add('root', metavar='FOLDER', help='folder that gets one folder per part')
    add('--preset', default='demo', choices=PRESETS, help='size of world, images and videos')
    add_shared(parser, '--seed')
    for name, what in (
        ('--num-videos', 'videos'),
        ('--num-images', 'training stills per task'),
        ('--num-probe-images', 'training images of the probe'),
    ):
        add(name, type=positive, metavar='N', help=f"{what} (default: the preset's)")
    add_shared(parser, '--workers')
    add('--tasks', nargs='+', default=TASKS, choices=TASKS, metavar='TASK', help='parts to make')
    add('--report', action='store_true', help='print what could give a video or a class away')
    add(
        '--contact-sheet',
        type=picture('.png', '.jpg'),
        metavar='PNG',
        help='picture of the world to write',
    )
    return parser.parse_args()


def main() -> int:
    """Make the data, and show what was asked for.

    Returns:
        int: 0; 1 if an item could not be made; 2 if an argument is wrong or a folder cannot be
        written.
    """
    args = vars(parse_args())

    from vito_mm.utils.worker_pool import WorkerLost, WorkError

    try:
        make(**args)
    except (WorkError, WorkerLost, ValueError, OSError, ImportError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1 if isinstance(error, (WorkError, WorkerLost)) else 2
    return 0


def make(report: bool, contact_sheet: Path | None, **args: Any) -> None:
    """Make the data, and the report and the picture."""
    from vito_mm.miniscenes import make_miniscenes

    make_miniscenes(**args)
    if report:
        from vito_mm.miniscenes.statistics import report_shortcuts

        print(report_shortcuts(args['preset'], args['seed']))
    if contact_sheet:
        from vito_mm.miniscenes.contact_sheet import write_contact_sheet

        write_contact_sheet(contact_sheet, args['preset'], args['seed'])


if __name__ == '__main__':
    sys.exit(main())
