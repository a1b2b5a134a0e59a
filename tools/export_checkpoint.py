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
    parser.add_argument(
        '--declare',
        nargs='+',
        default=(),
        metavar='FIELD=VALUE',
        help='what the network of the file computes, where the file does not tell: padding=same, '
        'stride_in=1x1, eps=1e-6, mean=0,0,0, std=1,1,1, channel_order=bgr',
    )
    parser.add_argument(
        '--config',
        help='config of the run, for a backbone that neither its weights nor the file tell',
    )
    args = parser.parse_args()

    from vito_mm.checkpoint import CheckpointError, export_backbone

    try:
        settings = args.which, args.layout, args.config, args.declare
        exported = export_backbone(args.checkpoint, args.out, *settings)
    except (CheckpointError, ImportError, FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from None
    print(f'{args.out}: {len(exported["state_dict"])} tensors in the {args.layout} layout')
    print(json.dumps(exported['meta'], indent=2))


if __name__ == '__main__':
    main()
