"""Studies and proxies as people see them: the tracker, its fields, MLflow and its pages."""
