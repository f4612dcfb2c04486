"""Many runs as one: recipes × overrides × seeds, each cell a `fit` in a process of its own."""
