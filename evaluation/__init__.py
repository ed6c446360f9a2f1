"""What a proxy is worth: bits per byte, benchmarks, suites, scores."""
