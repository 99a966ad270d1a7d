#!/bin/bash
# On the laptop: `ray up`, from the checkout wherever one stands, after what Ray does not look at.
#   clusters/up.sh cluster.yaml [OPTIONS OF ray up…]
set -eu
[ $# -ge 1 ] && [ -f "$1" ] || { echo "usage: clusters/up.sh FILE [OPTIONS OF ray up], such as clusters/up.sh cluster.yaml" >&2; exit 2; }
file=$(realpath "$1")
shift
cd "$(dirname "$(realpath "$0")")/.."
command -v ray >/dev/null || export PATH=$PWD/.venv/bin:$PATH
. clusters/private.sh
if left=$(sed 's/#.*//' "$file" | grep -n 'change-me'); then
  printf '%s\n' "$left" >&2
  echo "these lines of $file are placeholders: put your own values there; nothing was started" >&2
  exit 2
fi
make_token
private_token >/dev/null
python -m grid.commit || true # a copy without git: its message says that runs will name no commit
exec ray up "$file" "$@"
