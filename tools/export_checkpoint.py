#!/usr/bin/env python
"""Write the backbone of a checkpoint for other programs, or publish it.

A name that ends in .safetensors gives that format. Exporting an exported file loses nothing. The
layout huggingface makes a folder for the Hugging Face Hub, which timm loads; --model writes a
complete fine-tuned model without the state of training, safe to load.
"""

import argparse
import json

from _arguments import NETWORKS

LAYOUTS = ('openmmlab', 'torchvision', 'timm', 'detectron2', 'huggingface')


def main() -> None:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('checkpoint', help='training checkpoint, or an exported one')
    parser.add_argument('out', help='file to write, or folder (huggingface)')
    parser.add_argument('--which', choices=NETWORKS, help='default: online')
    parser.add_argument(
        '--layout',
        choices=LAYOUTS,
        help='whose names and entries; openmmlab is for mmdet, mmseg and mmpretrain (default)',
    )
    parser.add_argument(
        '--model',
        action='store_true',
        help='keep the complete model, of mmseg, mmdet or mmpretrain, not its backbone alone',
    )
    args = parser.parse_args()
    if args.model and (args.layout or args.which):
        parser.error('--model keeps all networks, under their names: no --layout, no --which')
    which, layout = args.which or 'online', args.layout or 'openmmlab'

    from vito_mm.checkpoint import CheckpointError, export_backbone
    from vito_mm.checkpoint.publishing import export_to_hub, publish_model

    try:
        if args.model:
            published = publish_model(args.checkpoint, args.out)
            print(f'{args.out}: {len(published["state_dict"])} tensors of the complete model')
            return
        if layout == 'huggingface':
            exported = export_to_hub(args.checkpoint, args.out, which)
        else:
            exported = export_backbone(args.checkpoint, args.out, which, layout)
    except (CheckpointError, ImportError) as error:
        raise SystemExit(str(error)) from None
    print(f'{args.out}: {len(exported["state_dict"])} tensors in the {layout} layout')
    print(json.dumps(exported['meta'], indent=2))


if __name__ == '__main__':
    main()
