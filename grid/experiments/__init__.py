"""One file an experiment; each names its corpus and yields its trials."""
