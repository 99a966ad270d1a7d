"""One method a file. Every module here is imported by the registry, so a new file is a new method."""
