#!/bin/bash
# On the head: launch.py as a job of the cluster's, which goes on when the terminal and the laptop are gone.
#   submit.sh EXPERIMENT [OPTIONS…]
set -eu
cd "$(dirname "$0")/.."
. clusters/environment.sh
# `ray job stop` is to wait until the launch has recorded where it stopped: Ray itself waits 3 seconds.
exec ray job submit --no-wait --runtime-env-json '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "120"}}' -- \
  bash -c 'cd "$0" && . clusters/environment.sh && exec python launch.py "$@"' "$PWD" "$@"
