"""Preparation of videos: integrity checks, re-encoding, a manifest and a report."""
