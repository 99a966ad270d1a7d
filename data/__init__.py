"""Images on disk to manifests and memory-mapped arrays. Knows nothing of models, Ray or MLflow."""
