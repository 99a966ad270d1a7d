"""A page to click in: `python -m analysis explore`."""
