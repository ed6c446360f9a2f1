"""What proxies read: documents, tokens in shards, the stream of a mixture."""
