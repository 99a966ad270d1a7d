# Sourced by slurm.sh: where the head is, and whether what it has started lives.

# Print the address of this node that the others reach it by.
head_address() {
  local address own
  own=" $(hostname -I 2>/dev/null || true) "
  address=${HEAD_ADDRESS:-$(getent ahostsv4 "$SLURMD_NODENAME" | awk '$1 !~ /^127\./ { print $1; exit }')}
  if [ -z "$address" ]; then # the name is that of the loopback, or none: the first address of this node
    address=$(awk '{ print $1 }' <<<"$own")
  fi
  if [ -z "$address" ] || [[ $address == 127.* ]]; then
    echo "no address of $SLURMD_NODENAME was found that other nodes could reach: HEAD_ADDRESS=ADDRESS sbatch …" >&2
    return 1
  fi
  if [ -n "${own// /}" ] && [[ $own != *" $address "* ]]; then
    echo "$address is no address of $SLURMD_NODENAME, which has$own: HEAD_ADDRESS=ADDRESS sbatch …" >&2
    return 1
  fi
  echo "$address"
}

# Whether each of these processes lives: `kill -0` of several succeeds while one of them does.
alive() {
  local process
  for process in "$@"; do
    kill -0 "$process" 2>/dev/null || return 1
  done
}

# Wait until Ray and MLflow answer: ADDRESS, process of MLflow, process of Ray.
wait_for_services() {
  local deadline=$((SECONDS + 600))
  until ray status >/dev/null 2>&1 && curl --silent --fail "http://$1:5000/health" >/dev/null; do
    alive "$2" || { echo "the MLflow server has ended; what it said is above" >&2; return 1; }
    alive "$3" || { echo "Ray's head has ended; what it said is above" >&2; return 1; }
    [ $SECONDS -lt $deadline ] || { echo "Ray or MLflow do not answer on $1 after 10 minutes" >&2; return 1; }
    sleep 2
  done
}
