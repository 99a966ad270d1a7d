#!/bin/bash
# The MLflow server of a cluster: mlflow_server.sh FOLDER. Records, artifacts and settings are in FOLDER and outlive it.
#   MLFLOW_HOSTS      names and addresses under which it is reached, host:port, by commas
#   MLFLOW_DATABASE   default: SQLite in FOLDER; or postgresql://USER@HOST/NAME, whose password is in ~/.pgpass (mode
#                     0600) or in the variable PGPASSWORD
#   MLFLOW_ARTIFACTS  default: a folder in FOLDER; or s3://BUCKET/FOLDER, gs://BUCKET/FOLDER
# Everything but /health needs user "admin" and Ray's token as the password. Status 3: it must not start like this.
set -eu
folder=$1
. "$(dirname "$0")/private.sh"
token=${RAY_AUTH_TOKEN:-$(private_token)} || exit 3
database=${MLFLOW_DATABASE:-sqlite:///$folder/mlflow.db}
if [[ $database =~ ^[^/]*://[^/@]*:[^/]*@ ]]; then
  echo "MLFLOW_DATABASE has a password in it, which every user sees in the list of processes: write" \
    "postgresql://USER@HOST/NAME, and the password in ~/.pgpass (chmod 600) or in PGPASSWORD" >&2
  exit 3
fi
umask 077
mkdir -p "$folder"
exec 9>>"$folder/server.lock" # held until the server has ended: a second one would remove the user of the first
if ! flock --timeout "${MLFLOW_LOCK_SECONDS:-20}" 9; then
  echo "another MLflow server has $folder ($(tail -n 1 "$folder/server.lock")): wait for its end, or name another" \
    "folder by MLFLOW_DATA=FOLDER" >&2
  exit 3
fi
echo "host $(uname -n), process $$, since $(date '+%F %T')" >"$folder/server.lock"
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
export MLFLOW_BACKEND_STORE_URI=$database
exec mlflow server --app-name basic-auth --host 0.0.0.0 --port 5000 --workers 1 --allowed-hosts "$MLFLOW_HOSTS" \
  --artifacts-destination "${MLFLOW_ARTIFACTS:-$folder/artifacts}"
