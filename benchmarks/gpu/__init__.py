"""Everything that only a GPU can show, in one command: see `__main__.py`, and `checks.py` for the list."""
