#!/usr/bin/env python
"""Nearest-neighbour accuracy of a checkpoint's frozen backbone on a folder of labelled images.

The folder holds train/<class>/*.jpg and val/<class>/*.jpg.
"""

import argparse
from pathlib import Path

from vito_mm.transfer.knn import checkpoint_knn


def main() -> None:
    """Parse the command line and print the accuracy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', help='checkpoint with a ResNet, or "random"')
    parser.add_argument('folder', type=Path, help='folder with train/ and val/')
    parser.add_argument('--depth', type=int, default=50, help='depth of the ResNet')
    parser.add_argument('--image-size', type=int, default=224, help='side of the images in pixels')
    parser.add_argument('--k', type=int, default=20, help='number of neighbours')
    parser.add_argument('--seed', type=int, default=0, help='seed of random weights')
    args = parser.parse_args()

    checkpoint = None if args.checkpoint == 'random' else args.checkpoint
    accuracy = checkpoint_knn(
        checkpoint, args.folder, args.depth, args.image_size, args.k, args.seed
    )
    print(f'kNN top-1: {accuracy:.1f} % ({args.checkpoint}, {args.folder}, k={args.k})')


if __name__ == '__main__':
    main()
