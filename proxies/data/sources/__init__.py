"""Where text comes from: files of many kinds, wherever fsspec opens them, and token files."""
