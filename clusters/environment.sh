# Sourced by the shells of every node: the locked environment, and one secret, Ray's token, for Ray and for MLflow.
. "$(dirname "${BASH_SOURCE[0]}")/private.sh"
export PATH=$HOME/inpaint-grid/.venv/bin:$PATH
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token
export MLFLOW_TRACKING_USERNAME=admin MLFLOW_TRACKING_PASSWORD
MLFLOW_TRACKING_PASSWORD=$(private_token)
if inpaint_grid_ray=$(current_ray); then
  export MLFLOW_TRACKING_URI=http://${inpaint_grid_ray%:*}:5000
fi
