#!/usr/bin/env python
"""Write the backbone of a checkpoint under torchvision's names, ready for any other program."""

import argparse

from vito_mm.transfer import CheckpointError, export_backbone
from vito_mm.transfer.checkpoint import NETWORKS


def main() -> None:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', help='training checkpoint, or an exported one')
    parser.add_argument('out', help='file to write')
    parser.add_argument('--which', choices=NETWORKS, default='online')
    args = parser.parse_args()
    try:
        exported = export_backbone(args.checkpoint, args.out, args.which)
    except CheckpointError as error:
        raise SystemExit(str(error)) from None
    print(f'{args.out}: {len(exported["state_dict"])} tensors, {exported["meta"]}')


if __name__ == '__main__':
    main()
