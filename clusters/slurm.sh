#!/bin/bash
# Slurm: Ray on the nodes of one job, launch.py and the MLflow server on the first of them. From the checkout, whose
# folder and home all nodes share, after `make setup` and, once, `.venv/bin/ray get-auth-token --generate`:
#   sbatch clusters/slurm.sh dolos --data DIR --runs DIR
#SBATCH --job-name=inpaint-grid
#SBATCH --nodes=2                 # change
#SBATCH --gpus-per-node=4         # change; driver 580 or newer, compute capability 7.5 or newer
#SBATCH --time=24:00:00           # change; the same command goes on where an ended job stopped
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:TERM@120
set -eu
export PATH=$PWD/.venv/bin:$PATH RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
test -s ~/.ray/auth_token || { echo "no ~/.ray/auth_token: run .venv/bin/ray get-auth-token --generate, once" >&2; exit 1; }
head=$(hostname -I | cut -d' ' -f1)
export RAY_ADDRESS=$head:6379
export MLFLOW_TRACKING_URI=http://$head:5000 MLFLOW_TRACKING_USERNAME=admin MLFLOW_TRACKING_PASSWORD=$(cat ~/.ray/auth_token)

MLFLOW_HOSTS=$head:5000,localhost:5000 clusters/mlflow_server.sh "${MLFLOW_DATA:-$HOME/mlflow}" &
mlflow=$!
srun --nodes=1 --ntasks=1 --nodelist="$SLURMD_NODENAME" \
  bash -c 'ray start --head --node-ip-address="${RAY_ADDRESS%:*}" --port=6379 --dashboard-host=127.0.0.1 \
    --labels="$(clusters/gpu_labels.sh)" --block' &
ray=$!
until ray status >/dev/null 2>&1 && curl --silent --fail "http://$head:5000/health" >/dev/null; do
  kill -0 $mlflow $ray || { echo "the MLflow server or Ray's head has ended; what it said is above" >&2; exit 1; }
  [ $SECONDS -lt 600 ] || { echo "Ray or MLflow do not answer on $head after 10 minutes" >&2; exit 1; }
  sleep 2
done
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$SLURMD_NODENAME" \
    bash -c 'ray start --address="$RAY_ADDRESS" --labels="$(clusters/gpu_labels.sh)" --block' &
fi

python launch.py "$@" &
launch=$!
trap 'kill -TERM $launch' TERM # two minutes before the end of the job: it leaves a state to go on from
wait $launch || wait $launch  # the first one ends when that signal comes
