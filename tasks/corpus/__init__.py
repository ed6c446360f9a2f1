"""From sources to a corpus: download, deduplicate and split, tokenize and write."""
