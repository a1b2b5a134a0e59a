#!/usr/bin/env python
"""Train from a config: VITO pre-training, or any mmseg, mmdet or mmpretrain config."""

import argparse

from _arguments import SHARED, Parser, add_common_arguments, add_shared


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    add_shared(parser, 'config')
    add_shared(
        parser,
        '--videos',
        help=f"{SHARED['--videos']['help']}, to pre-train on (default: the config's)",
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this file; without a name from the latest in the work dir',
    )
    parser.add_argument(
        '--amp',
        action='store_true',
        help="mixed precision where the config has none; on a CPU the config's bfloat16, for "
        'those with AMX',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate from auto_scale_lr.base_batch_size to the actual batch',
    )
    add_common_arguments(parser)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Train."""
    from vito_mm.launch import build_runner, load_config, set_resume

    cfg = load_config(args)
    wrapper = cfg.get('optim_wrapper') or {}
    has_amp = wrapper.get('type') == 'AmpOptimWrapper' or wrapper.get('dtype')
    if args.amp and not has_amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise SystemExit(f'{args.config} has no auto_scale_lr.base_batch_size to scale from')
        cfg.auto_scale_lr.enable = True
    goes_on = cfg.get('resume') and not cfg.get('load_from')
    set_resume(cfg, args.resume or ('auto' if goes_on else None))
    build_runner(cfg, args.amp).train()


if __name__ == '__main__':
    args = parse_args()
    import vito_mm.launch  # noqa: F401, I001  before torch, for which it sets how threads spin
    from torch.distributed.elastic.multiprocessing.errors import record

    record(main)(args)  # torchrun shows the error of the process that failed first
