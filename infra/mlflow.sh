#!/bin/sh
# MLflow's server with PostgreSQL, artifact proxy and sign-in; secrets come from the environment.
# None is an argument, for every user of a machine reads those: libpq takes PGPASSWORD.
set -eu
umask 077
sh "$(dirname "$0")/start.sh" CUVEE_DB_PASSWORD CUVEE_MLFLOW_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY
PGPASSWORD=$CUVEE_DB_PASSWORD
database="postgresql+psycopg2://${CUVEE_DB_USER:-mlflow}@${CUVEE_DB_HOST:-postgres}:5432"
MLFLOW_AUTH_CONFIG_PATH="${TMPDIR:-/tmp}/mlflow-auth.ini"
export PGPASSWORD MLFLOW_AUTH_CONFIG_PATH
export MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
rm -f "$MLFLOW_AUTH_CONFIG_PATH" # a file that is there keeps its mode
cat > "$MLFLOW_AUTH_CONFIG_PATH" <<END
[mlflow]
default_permission = EDIT
database_uri = ${database}/mlflow_auth
admin_username = cuvee
auth_cache_ttl_seconds = 60
admin_password = ${CUVEE_MLFLOW_PASSWORD}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
END
exec mlflow server --app-name basic-auth --host 0.0.0.0 --port 5000 --workers 2 \
    --allowed-hosts "${CUVEE_MLFLOW_HOSTS:-localhost:5000,127.0.0.1:5000}" \
    --backend-store-uri "${database}/mlflow" \
    --artifacts-destination "${CUVEE_ARTIFACTS:-/artifacts}"
