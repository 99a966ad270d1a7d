#!/bin/bash
# The MLflow server of a cluster: mlflow_server.sh FOLDER. Records, artifacts and settings are in FOLDER and outlive it.
#   MLFLOW_HOSTS      names and addresses under which it is reached, host:port, by commas
#   MLFLOW_DATABASE   default: SQLite in FOLDER; or postgresql://USER:PASSWORD@HOST/NAME
#   MLFLOW_ARTIFACTS  default: a folder in FOLDER; or s3://BUCKET/FOLDER, gs://BUCKET/FOLDER
# Everything but /health needs user "admin" and Ray's token as the password.
set -eu
folder=$1
token=${RAY_AUTH_TOKEN:-$(cat ~/.ray/auth_token)}
umask 077
mkdir -p "$folder"
rm -f "$folder/auth.db" # it holds that one user; made anew, its password is the token of today
cat >"$folder/auth.ini" <<INI
[mlflow]
default_permission = NO_PERMISSIONS
database_uri = sqlite:///$folder/auth.db
admin_username = admin
auth_cache_ttl_seconds = 600
INI
export MLFLOW_AUTH_CONFIG_PATH=$folder/auth.ini MLFLOW_AUTH_ADMIN_PASSWORD=$token
export MLFLOW_FLASK_SERVER_SECRET_KEY=$token MLFLOW_DISABLE_TELEMETRY=true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_SQLALCHEMYSTORE_POOL_SIZE=100
exec mlflow server --app-name basic-auth --host 0.0.0.0 --port 5000 --workers 1 --allowed-hosts "$MLFLOW_HOSTS" \
  --backend-store-uri "${MLFLOW_DATABASE:-sqlite:///$folder/mlflow.db}" \
  --artifacts-destination "${MLFLOW_ARTIFACTS:-$folder/artifacts}"
