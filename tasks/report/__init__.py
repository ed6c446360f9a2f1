"""The report of a study: one page, its explorer, a Markdown twin."""
