"""A study from recipe to answer: prepare, search, confirm, refit, and what stands finished."""
