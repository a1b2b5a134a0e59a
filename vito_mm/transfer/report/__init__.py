"""What a transfer suite found, in tables, curves and pictures."""
