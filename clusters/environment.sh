# Sourced by the shells of every node: the locked environment, and one secret, Ray's token, for Ray and for MLflow.
export PATH=$HOME/inpaint-grid/.venv/bin:$PATH
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token
export MLFLOW_TRACKING_USERNAME=admin MLFLOW_TRACKING_PASSWORD=$(cat ~/.ray/auth_token)
if [ -f /tmp/ray/ray_current_cluster ]; then
  export MLFLOW_TRACKING_URI=http://$(cut -d: -f1 /tmp/ray/ray_current_cluster):5000
fi
