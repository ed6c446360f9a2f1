-- A role and a database of its own for each server; run by psql 15 or later, again and again.
\getenv prefect_password CUVEE_PREFECT_DB_PASSWORD
\getenv mlflow_password CUVEE_MLFLOW_DB_PASSWORD
SELECT format('CREATE ROLE %I LOGIN', name) FROM (VALUES ('prefect'), ('mlflow')) AS servers (name)
    WHERE name NOT IN (SELECT rolname FROM pg_roles) \gexec
ALTER ROLE prefect PASSWORD :'prefect_password';
ALTER ROLE mlflow PASSWORD :'mlflow_password';
SELECT format('CREATE DATABASE %I OWNER %I', name, owner)
    FROM (VALUES ('prefect', 'prefect'), ('mlflow', 'mlflow'), ('mlflow_auth', 'mlflow')) AS wanted (name, owner)
    WHERE name NOT IN (SELECT datname FROM pg_database) \gexec
REVOKE ALL ON DATABASE postgres, prefect, mlflow, mlflow_auth FROM PUBLIC;
