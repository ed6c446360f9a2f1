"""Small language models, their data streams, and the trainer of packs."""
