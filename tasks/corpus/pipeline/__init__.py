"""The steps of a preparation: read parts, drop duplicates, hold out, tokenize; where they run."""
