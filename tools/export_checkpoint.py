#!/usr/bin/env python
"""Write the backbone of a checkpoint for other programs.

A name that ends in .safetensors gives that format. Exporting an exported file loses nothing.
"""

import json

from _arguments import Parser, add_shared

LAYOUTS = ('openmmlab', 'torchvision', 'timm', 'detectron2')


def main() -> None:
    """Parse the command line and export."""
    parser = Parser(description=__doc__)
    add_shared(parser, 'checkpoint')
    parser.add_argument('out', metavar='OUT', help='file to write')
    add_shared(parser, '--which')
    parser.add_argument(
        '--layout',
        choices=LAYOUTS,
        default='openmmlab',
        help='whose names and entries; openmmlab is for mmdet, mmseg and mmpretrain',
    )
    args = parser.parse_args()

    from vito_mm.checkpoint import CheckpointError, export_backbone

    try:
        exported = export_backbone(args.checkpoint, args.out, args.which, args.layout)
    except (CheckpointError, ImportError) as error:
        raise SystemExit(str(error)) from None
    print(f'{args.out}: {len(exported["state_dict"])} tensors in the {args.layout} layout')
    print(json.dumps(exported['meta'], indent=2))


if __name__ == '__main__':
    main()
