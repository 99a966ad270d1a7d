"""Detectors: backbones, heads, training, scoring. Knows arrays and tensors; nothing of files, Ray or MLflow."""
