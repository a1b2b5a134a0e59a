#!/usr/bin/env python
"""Evaluate a checkpoint of a segmentation, detection or classification config."""

from _arguments import Parser, add_common_arguments, add_shared


def main() -> None:
    """Parse the command line and evaluate."""
    parser = Parser(description=__doc__)
    add_shared(parser, 'config')
    add_shared(parser, 'checkpoint', help='file that training wrote')
    add_common_arguments(parser)
    parser.add_argument(
        '--validation',
        action='store_true',
        help='evaluate on the validation set, as training does, in the place of the test set',
    )
    args = parser.parse_args()

    from vito_mm.launch import build_runner, load_config

    cfg = load_config(args)
    loader = 'val_dataloader' if args.validation else 'test_dataloader'
    if not cfg.get(loader):
        raise SystemExit(
            f'{args.config} has no {loader}: pre-training has nothing to test. Evaluate its '
            'checkpoint by fine-tuning (configs/seg, configs/det) or tools/probe.py'
        )
    if args.validation:
        cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
        cfg.test_cfg = dict(cfg.val_cfg, type='TestLoop')
    cfg.load_from = args.checkpoint
    build_runner(cfg).test()


if __name__ == '__main__':
    main()
