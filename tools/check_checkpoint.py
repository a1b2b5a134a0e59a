#!/usr/bin/env python
"""Check, without data and training, that a config starts from the whole backbone of a checkpoint.

Exit status 0: it does, or would if it named the file. 1: weights would be lost, or the network is
known to compute something else with them, with the reason. Warnings tell of settings with which all
keys load and still something is wasted; --strict makes them an error.
"""

from _arguments import Parser, add_shared


def main() -> None:
    """Parse the command line, check and say what was found."""
    parser = Parser(description=__doc__)
    add_shared(parser, 'config')
    add_shared(
        parser, 'checkpoint', nargs='?', help='file (default: the one that the config names)'
    )
    add_shared(parser, '--cfg-options')
    parser.add_argument('--strict', action='store_true', help='exit with 1 after a warning too')
    args = parser.parse_args()

    from vito_mm.checkpoint import CheckpointError, check_config
    from vito_mm.launch import apply_options
    from vito_mm.utils.configs import read_config

    try:
        config = read_config(args.config)
        if args.cfg_options:
            apply_options(config, args.cfg_options)
        check = check_config(config, args.checkpoint)
    except (CheckpointError, OSError) as error:
        raise SystemExit(f'NOT complete. {error}') from None
    except (ImportError, KeyError, TypeError, ValueError) as error:
        raise SystemExit(
            f'NOT complete. {args.config} cannot be read: {type(error).__name__}: {error}'
        ) from None
    match = check.match
    verdict = 'complete' if match.complete else 'NOT complete, but allow_partial=True'
    print(f'{verdict}: {check.place} gets {match.coverage()}')
    if not match.complete:
        print(match.describe())
    if check.assumed:
        print(f'Assumed, as the file does not tell: {check.assumed}')
    if check.notice:
        print(f'Weights: {check.notice}')
    if check.note:
        print(f'Note: {check.note}')
    for warning in check.warnings:
        print(f'WARNING: {warning}')
    if args.strict and check.warnings:
        raise SystemExit(1)


if __name__ == '__main__':
    main()
