#!/usr/bin/env python
"""The whole path on the embedded data: pre-train on videos, fine-tune mmseg and mmdet, compare.

Writes data/miniscenes and work_dirs/demo in the current folder.
"""

import argparse
from pathlib import Path

from vito_mm.miniscenes.demo import run_demo


def main() -> None:
    """Run the demo with the configs and tools beside this file."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    run_demo(Path(__file__).resolve().parents[1])


if __name__ == '__main__':
    main()
