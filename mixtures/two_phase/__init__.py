"""A stable phase and a decay phase: candidates, the law over both, the decision."""
