"""Make the embedded data: videos, and the same world as ADE20K, VOC, COCO, LVIS and a probe."""

import argparse

PRESETS = ('demo', 'study', 'study_small', 'tiny')
TASKS = ('videos', 'ade20k', 'voc', 'coco', 'lvis', 'probe', 'davis')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('root', help='folder that gets one folder a part')
    parser.add_argument('--preset', default='demo', choices=PRESETS)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--num-videos', type=int, help="default: the preset's")
    parser.add_argument('--num-images', type=int, help='training stills a task')
    parser.add_argument('--num-probe-images', type=int, help='training images of the probe')
    parser.add_argument('--workers', type=int, help='processes; default: the number of cores')
    parser.add_argument('--tasks', nargs='+', default=TASKS, choices=TASKS)
    parser.add_argument(
        '--report', action='store_true', help='print what could give a video or a class away'
    )
    parser.add_argument('--contact-sheet', metavar='PNG', help='write a picture of the world')
    return parser.parse_args()


def main() -> None:
    """Make the data, and show what was asked for."""
    args = vars(parse_args())

    from vito_mm.miniscenes import make_miniscenes

    report, sheet = args.pop('report'), args.pop('contact_sheet')
    make_miniscenes(**args)
    if report:
        from vito_mm.miniscenes.statistics import report_shortcuts

        print(report_shortcuts(args['preset'], args['seed']))
    if sheet:
        from vito_mm.miniscenes.contact_sheet import write_contact_sheet

        write_contact_sheet(sheet, args['preset'], args['seed'])


if __name__ == '__main__':
    main()
