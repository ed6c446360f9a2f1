"""Whether a recommendation holds: paired gains, tests at larger sizes, predictions."""
