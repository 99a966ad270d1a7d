#!/bin/bash
# Start or restart what a head runs beside Ray: the MLflow server, which ends with that Ray. Called by `ray up`.
#   MLFLOW_DATA       folder of its records, artifacts and log; default ~/mlflow
#   MLFLOW_DATABASE, MLFLOW_ARTIFACTS     see mlflow_server.sh
set -eu
data=${MLFLOW_DATA:-$HOME/mlflow}
running=/tmp/ray/ray_current_cluster # `ray stop` removes it
address=$(cut -d: -f1 $running)
mkdir -p "$data"

if [ "${1:-}" = keep ]; then
  while [ -f $running ]; do
    MLFLOW_HOSTS=$address:5000,localhost:5000,127.0.0.1:5000 "$(dirname "$0")/mlflow_server.sh" "$data" &
    while [ -f $running ] && kill -0 $! 2>/dev/null; do sleep 1; done
  done
  kill -- -$$ # the server's own workers too
fi

before=$(cat "$data/keeper.pid" 2>/dev/null || echo none)
if grep -qs head_services "/proc/$before/cmdline"; then
  kill -- "-$before"
  sleep 2
fi
setsid "$0" keep >>"$data/server.log" 2>&1 </dev/null &
echo $! >"$data/keeper.pid"
for _ in $(seq 120); do
  if curl --silent --fail "http://$address:5000/health" >/dev/null; then
    echo "MLflow: http://$address:5000"
    exit
  fi
  sleep 1
done
tail "$data/server.log"
echo "MLflow did not start; its log is $data/server.log" >&2
exit 1
