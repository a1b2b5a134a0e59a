#!/usr/bin/env python
"""Nearest-neighbour accuracy of a checkpoint's frozen backbone on a folder of labelled images.

The folder holds train/<class>/*.jpg and val/<class>/*.jpg.
"""

import argparse
from pathlib import Path

import torch

from vito_mm.models.backbones import VITOResNet
from vito_mm.transfer.knn import image_folder_features, knn_top1


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

    torch.manual_seed(args.seed)
    checkpoint = None if args.checkpoint == 'random' else args.checkpoint
    backbone = VITOResNet(depth=args.depth, checkpoint=checkpoint, library='mmpretrain')
    backbone.init_weights()
    if torch.cuda.is_available():
        backbone.cuda()
    train, test = (
        image_folder_features(backbone, args.folder / part, args.image_size)
        for part in ('train', 'val')
    )
    accuracy = knn_top1(*train, *test, k=args.k)
    print(f'kNN top-1: {accuracy:.1f} % ({args.checkpoint}, {len(test[1])} images, k={args.k})')


if __name__ == '__main__':
    main()
