"""The built-in demo: drawn faces, and stand-in generators that repaint them."""
