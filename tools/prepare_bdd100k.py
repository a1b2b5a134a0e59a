#!/usr/bin/env python
"""Turn BDD100K's detection labels into COCO annotation files, which mmdet reads.

Segmentation needs no preparation: mmseg reads images/10k and labels/sem_seg/masks as they come.
"""

import argparse
import sys

from _arguments import Parser


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add('root', metavar='FOLDER', help='folder of BDD100K, with images/100k/train and val')
    add(
        'out',
        nargs='?',
        metavar='OUT_FOLDER',
        help='folder for det_train_coco.json and det_val_coco.json (default: that of the labels)',
    )
    add(
        '--labels',
        metavar='FOLDER',
        help='folder of det_train.json and det_val.json, or of bdd100k_labels_images_train.json '
        'and val of 2018 (default: labels/det_20 in FOLDER)',
    )
    return parser.parse_args()


def main() -> int:
    """Convert both splits and say what is in them.

    Returns:
        int: 0, or 2 if something is missing or wrong.
    """
    args = parse_args()

    from vito_mm.evaluation.bdd100k import convert_labels

    try:
        converted = convert_labels(**vars(args))
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    for file, counts in converted.items():
        print(f'{file}: {counts.images} images, {counts.boxes} boxes')
        print(f'  {counts.crowds} of them are crowds or uncertain, and count neither way')
        if counts.empty:
            print(f'  {counts.empty} empty boxes were skipped')
    return 0


if __name__ == '__main__':
    sys.exit(main())
