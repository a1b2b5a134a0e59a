"""The report of a transfer suite: tables, curves and pictures."""
