#!/usr/bin/env python
"""The whole path on the embedded data: pre-train on videos, fine-tune mmseg and mmdet, compare."""

import argparse
import os
from pathlib import Path

from vito_mm.miniscenes.demo import run_demo

REPO = Path(__file__).resolve().parents[1]


def main() -> None:
    """Run the demo from the root of the checkout, which its configs' paths start from."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    os.chdir(REPO)
    run_demo(REPO)


if __name__ == '__main__':
    main()
