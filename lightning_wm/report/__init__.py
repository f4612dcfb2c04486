"""Results as two files that grow, and the published numbers that they stand beside."""
