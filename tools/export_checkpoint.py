#!/usr/bin/env python
"""Write the backbone of a checkpoint for other programs.

A name that ends in .safetensors gives that format. Exporting an exported file loses nothing.
"""

import argparse
import json

from _arguments import NETWORKS

LAYOUTS = ('openmmlab', 'torchvision', 'timm', 'detectron2')


def main() -> None:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('checkpoint', help='training checkpoint, or an exported one')
    parser.add_argument('out', help='file to write')
    parser.add_argument('--which', choices=NETWORKS, default='online', help='default: online')
    parser.add_argument(
        '--layout',
        choices=LAYOUTS,
        default='openmmlab',
        help='whose names and entries; openmmlab is for mmdet, mmseg and mmpretrain (default)',
    )
    parser.add_argument(
        '--config',
        help='config of the run, for a backbone that neither its weights nor the file tell',
    )
    args = parser.parse_args()

    from vito_mm.checkpoint import CheckpointError, export_backbone

    try:
        exported = export_backbone(args.checkpoint, args.out, args.which, args.layout, args.config)
    except (CheckpointError, ImportError, FileNotFoundError) as error:
        raise SystemExit(str(error)) from None
    print(f'{args.out}: {len(exported["state_dict"])} tensors in the {args.layout} layout')
    print(json.dumps(exported['meta'], indent=2))


if __name__ == '__main__':
    main()
