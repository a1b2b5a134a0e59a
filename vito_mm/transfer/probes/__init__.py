"""Evaluation of frozen backbones, in minutes."""
