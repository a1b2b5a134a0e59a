#!/usr/bin/env python
"""Check, without training, that a config starts from the whole backbone of a checkpoint."""

import argparse

from vito_mm.transfer import CheckpointError, check_config


def main() -> None:
    """Parse the command line and check; exit status 1 means that weights would be missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of mmseg, mmdet or mmpretrain')
    parser.add_argument('checkpoint', nargs='?', help='default: the one named in the config')
    args = parser.parse_args()
    try:
        match = check_config(args.config, args.checkpoint)
    except CheckpointError as error:
        raise SystemExit(f'NOT complete. {error}') from None
    verdict = 'complete' if match.complete else 'NOT complete, but allow_partial=True'
    print(f'{verdict}: {len(match.weights)}/{match.total} keys, prefix {match.prefix!r}')


if __name__ == '__main__':
    main()
