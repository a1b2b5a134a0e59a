#!/usr/bin/env python
"""Write the backbone of a checkpoint for other programs, or publish it.

A name that ends in .safetensors gives that format. Exporting an exported file loses nothing. The
layout huggingface makes a folder for the Hugging Face Hub, which timm loads; --model writes a
complete fine-tuned model without the state of training, safe to load.
"""

import json

from _arguments import Parser, add_shared

LAYOUTS = ('openmmlab', 'torchvision', 'timm', 'detectron2', 'huggingface')


def main() -> None:
    """Parse the command line and export."""
    parser = Parser(description=__doc__)
    add_shared(parser, 'checkpoint')
    parser.add_argument('out', metavar='OUT', help='file to write, or folder (huggingface)')
    add_shared(parser, '--which')
    parser.add_argument(
        '--layout',
        choices=LAYOUTS,
        default='openmmlab',
        metavar='LAYOUT',
        help='whose names and entries: timm, torchvision, detectron2, huggingface for its Hub, or '
        'openmmlab for mmdet, mmseg and mmpretrain',
    )
    parser.add_argument(
        '--declare',
        nargs='+',
        default=(),
        metavar='FIELD=VALUE',
        help='what the network of the file computes, where the file does not tell: padding=same, '
        'stride_in=1x1, eps=1e-6, channel_order=bgr, and mean=0,0,0, std=1,1,1 in this order, of '
        'pixels in [0, 255]',
    )
    parser.add_argument(
        '--config',
        help='config of the run, for a backbone that neither its weights nor the file tell',
    )
    parser.add_argument(
        '--model',
        action='store_true',
        help='keep the complete model, of mmseg, mmdet or mmpretrain, not its backbone alone',
    )
    args = parser.parse_args()
    which, layout = args.which, args.layout
    if args.model and (which, layout) != ('online', 'openmmlab'):
        parser.error('--model keeps all networks, under their names: no --layout, no --which')
    if args.model and (args.declare or args.config):
        parser.error('--model keeps what the file tells of itself: no --declare, no --config')

    from vito_mm.checkpoint import CheckpointError, export_backbone
    from vito_mm.checkpoint.publishing import export_to_hub, publish_model

    try:
        if args.model:
            published = publish_model(args.checkpoint, args.out)
            print(f'{args.out}: {len(published["state_dict"])} tensors of the complete model')
            return
        settings = args.config, args.declare
        if layout == 'huggingface':
            exported = export_to_hub(args.checkpoint, args.out, which, *settings)
        else:
            exported = export_backbone(args.checkpoint, args.out, which, layout, *settings)
    except (CheckpointError, ImportError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from None
    print(f'{args.out}: {len(exported["state_dict"])} tensors in the {layout} layout')
    print(json.dumps(exported['meta'], indent=2))


if __name__ == '__main__':
    main()
