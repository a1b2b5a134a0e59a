"""Evaluation of features without fine-tuning: kNN, linear probes, retrieval in time, collapse."""
