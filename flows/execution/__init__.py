"""Where trainings run: evaluator, budget, Ray, Prefect's session."""
