"""The home and its store: what to remove, what cannot be trusted."""
