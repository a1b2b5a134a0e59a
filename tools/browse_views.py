#!/usr/bin/env python
"""Draw what a pre-training run will see: its first clips, crops, views and time differences."""

import sys
from pathlib import Path

from _arguments import SHARED, Parser, add_shared, picture, positive


def main() -> None:
    """Parse the command line, write the picture and say where it is."""
    parser = Parser(description=__doc__)
    add_shared(parser, 'config')
    add_shared(parser, '--videos', help=f"{SHARED['--videos']['help']} (default: the config's)")
    add_shared(
        parser,
        '--out',
        type=picture('.png'),
        metavar='PNG',
        help='picture to write (default: views.png in the work dir of the config)',
    )
    parser.add_argument('--num-clips', type=positive, default=6, metavar='N', help='clips to show')
    add_shared(parser, '--seed', default=None, help="seed of the run (default: the config's)")
    add_shared(parser, '--cfg-options')
    parser.set_defaults(work_dir=None, launcher='none', local_rank=0)
    args = parser.parse_args()

    from vito_mm.launch import load_config
    from vito_mm.visualization.preview_picture import write_preview

    sys.stdout.reconfigure(errors='backslashreplace')  # file names need not be text
    cfg = load_config(args)
    out = args.out or str(Path(cfg.work_dir) / 'views.png')
    try:
        print(write_preview(cfg, out, args.num_clips, args.seed))
    except (OSError, ValueError, RuntimeError) as error:
        raise SystemExit(f'{args.config}: {error}') from None
    print(f'written to {out}')


if __name__ == '__main__':
    main()
