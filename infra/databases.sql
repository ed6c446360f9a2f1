-- Databases beside Prefect's own: MLflow's record, and its users.
CREATE DATABASE mlflow;
CREATE DATABASE mlflow_auth;
