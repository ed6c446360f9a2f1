"""The story in order: flows, the command line, recipes, the runner."""
