"""Stand-in inpainters of the built-in demo, one a file; honest names of their own, never those of real generators."""
