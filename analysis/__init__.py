"""Tables and figures built from tracked runs alone."""
