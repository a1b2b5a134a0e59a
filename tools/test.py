#!/usr/bin/env python
"""Evaluate a checkpoint of a segmentation, detection or classification config on its test set."""

from _arguments import Parser, add_common_arguments, add_shared


def main() -> None:
    """Parse the command line and evaluate."""
    parser = Parser(description=__doc__)
    add_shared(parser, 'config')
    add_shared(parser, 'checkpoint', help='file that training wrote')
    add_common_arguments(parser)
    args = parser.parse_args()

    from vito_mm.launch import build_runner, load_config

    cfg = load_config(args)
    if not cfg.get('test_dataloader'):
        raise SystemExit(
            f'{args.config} has no test_dataloader: pre-training has nothing to test. Evaluate its '
            'checkpoint by fine-tuning (configs/seg, configs/det) or tools/probe.py'
        )
    cfg.load_from = args.checkpoint
    build_runner(cfg).test()


if __name__ == '__main__':
    main()
