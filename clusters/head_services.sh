#!/bin/bash
# Start or restart what a head runs beside Ray: the MLflow server, which ends with that Ray. Called by `ray up`.
#   MLFLOW_DATA       folder of its records, artifacts and log; default ~/mlflow
#   MLFLOW_BACKUP     folder that outlives the head: artifacts are there, and a copy of the records, made anew every
#                     MLFLOW_BACKUP_SECONDS (600); a head without records begins with that copy
#   MLFLOW_DATABASE, MLFLOW_ARTIFACTS     see mlflow_server.sh
set -eu
here=$(dirname "$0")
. "$here/private.sh"
data=${MLFLOW_DATA:-$HOME/mlflow}
backup=${MLFLOW_BACKUP:-}
(umask 077 && mkdir -p "$data" ${backup:+"$backup"})
if [ -n "$backup" ]; then
  export MLFLOW_ARTIFACTS=${MLFLOW_ARTIFACTS:-$backup/artifacts}
fi

if [ "${1:-}" = keep ]; then
  due=$((SECONDS + 60)) # a server that starts may still change the tables
  while address=$(current_ray); do
    MLFLOW_HOSTS=${address%:*}:5000,localhost:5000,127.0.0.1:5000 "$here/mlflow_server.sh" "$data" &
    while current_ray >/dev/null && kill -0 $! 2>/dev/null; do
      sleep 1
      if [ -n "$backup" ] && [ -e "$data/mlflow.db" ] && [ $SECONDS -ge $due ]; then
        python "$here/copy_records.py" "$data/mlflow.db" "$backup/mlflow.db" || true # the log has its message
        due=$((SECONDS + ${MLFLOW_BACKUP_SECONDS:-600}))
      fi
    done
    ended=0
    kill -0 $! 2>/dev/null || wait $! || ended=$?
    [ $ended != 3 ] || exit 3 # it would refuse again; its message is in the log
    sleep 1
  done
  kill -- -$$ # the server's own workers too
fi

address=$(current_ray) || { echo "Ray does not run here: ray start --head first" >&2; exit 1; }
private_token >/dev/null
before=$(cat "$data/keeper.pid" 2>/dev/null || echo none)
if grep -qs head_services "/proc/$before/cmdline"; then
  kill -- "-$before"
  sleep 2
fi
if [ -z "${MLFLOW_DATABASE:-}" ] && [ ! -e "$data/mlflow.db" ] && [ -n "$backup" ] && [ -e "$backup/mlflow.db" ]; then
  python "$here/copy_records.py" "$backup/mlflow.db" "$data/mlflow.db"
  echo "MLflow: this head has no records yet, and begins with those in $backup"
fi
setsid "$0" keep >>"$data/server.log" 2>&1 </dev/null &
keeper=$!
echo $keeper >"$data/keeper.pid"
for _ in $(seq 120); do
  if curl --silent --fail "http://${address%:*}:5000/health" >/dev/null; then
    echo "MLflow: http://${address%:*}:5000"
    exit
  fi
  kill -0 $keeper 2>/dev/null || break
  sleep 1
done
tail "$data/server.log"
echo "MLflow did not start; its log is $data/server.log" >&2
exit 1
