#!/usr/bin/env python
"""The whole path on the embedded data: pre-train on videos, fine-tune mmseg and mmdet, compare.

Writes data/miniscenes and, unless --work-dir names another folder, work_dirs/demo in the current
folder.
"""

import sys
from pathlib import Path

from _arguments import Parser, add_shared

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Run the demo with the configs and tools beside this file."""
    parser = Parser(description=__doc__)
    add_shared(parser, '--seed', help='seed of all runs')
    add_shared(parser, '--work-dir', type=Path, default=Path('work_dirs/demo'))
    args = parser.parse_args()

    sys.path.insert(0, str(ROOT))
    import vito_mm  # noqa: F401  before torch, for which it sets how threads spin
    from projects.miniscenes_study.demo import run_demo

    run_demo(ROOT, work_dir=args.work_dir, seed=args.seed)


if __name__ == '__main__':
    main()
