#!/bin/bash
# Slurm: Ray on the nodes of one job, launch.py and the MLflow server on the first of them. From the checkout, whose
# folder and home all nodes share, after `make setup`:
#   sbatch clusters/slurm.sh dolos --data DIR --runs DIR
#   HEAD_ADDRESS      address of the first node in the network of the nodes, where the one that is found is wrong
#   MLFLOW_DATA       folder of MLflow's records, default ~/mlflow; jobs that run at the same time need one each
#SBATCH --job-name=inpaint-grid
#SBATCH --nodes=2                 # change
#SBATCH --gpus-per-node=4         # change; driver 580 or newer, compute capability 7.5 or newer
#SBATCH --time=24:00:00           # change; the same command goes on where an ended job stopped
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:TERM@120
set -eu
export PATH=$PWD/.venv/bin:$PATH RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
. clusters/private.sh
. clusters/slurm_parts.sh
make_token
MLFLOW_TRACKING_PASSWORD=$(private_token)
head=$(head_address)
export RAY_ADDRESS=$head:6379
export MLFLOW_TRACKING_URI=http://$head:5000 MLFLOW_TRACKING_USERNAME=admin MLFLOW_TRACKING_PASSWORD

MLFLOW_HOSTS=$head:5000,localhost:5000 clusters/mlflow_server.sh "${MLFLOW_DATA:-$HOME/mlflow}" &
mlflow=$!
srun --nodes=1 --ntasks=1 --nodelist="$SLURMD_NODENAME" \
  bash -c 'ray start --head --node-ip-address="${RAY_ADDRESS%:*}" --port=6379 --dashboard-host=127.0.0.1 \
    --labels="$(clusters/gpu_labels.sh)" --block' &
ray=$!
wait_for_services "$head" "$mlflow" "$ray"
workers=$((SLURM_JOB_NUM_NODES - 1))
if [ "$workers" -gt 0 ]; then
  srun --nodes=$workers --ntasks=$workers --exclude="$SLURMD_NODENAME" \
    bash -c 'if ! timeout 30 bash -c "</dev/tcp/${RAY_ADDRESS%:*}/6379"; then
        echo "$SLURMD_NODENAME does not reach Ray at $RAY_ADDRESS: HEAD_ADDRESS=ADDRESS sbatch …" >&2
        exit 1
      fi
      ray start --address="$RAY_ADDRESS" --labels="$(clusters/gpu_labels.sh)" --block' &
fi

python launch.py "$@" &
launch=$!
trap 'kill -TERM $launch' TERM # two minutes before the end of the job: it leaves a state to go on from
wait $launch || wait $launch  # the first one ends when that signal comes
