# Sourced by the scripts beside it: the one secret, Ray's token, and the address of the Ray that runs on this machine.

# Make the token, for this user alone, where there is none.
make_token() {
  [ -s ~/.ray/auth_token ] || (umask 077 && ray get-auth-token --generate >/dev/null 2>&1)
}

# Print the token. Where there is none, or others can read it, say so and fail.
private_token() {
  local file=~/.ray/auth_token
  if [ ! -s "$file" ]; then
    echo "there is no $file: (umask 077; ray get-auth-token --generate) makes one" >&2
  elif [ -n "$(find -L "$file" -prune ! -uid "$(id -u)" ! -uid 0)" ]; then
    echo "$file belongs to another user, who then has the key to the cluster: remove it, and make a new one" >&2
  elif [ -n "$(find -L "$file" -prune \( -perm -040 -o -perm -020 -o -perm -004 -o -perm -002 \))" ]; then
    echo "others can read $file, the key to the cluster: chmod 600 $file" >&2
  else
    cat "$file"
    return
  fi
  return 1
}

# Print HOST:PORT of the Ray that runs on this machine; fail where none runs. Any user of the machine can replace the file
# in which Ray says so, and whoever stands in it is given the token: the file must belong to this user or to root.
current_ray() {
  local file=${RAY_TMPDIR:-${TMPDIR:-/tmp}}/ray/ray_current_cluster owner= address=
  [ -e "$file" ] || [ -L "$file" ] || return 1 # `ray stop` removes it
  if [ -f "$file" ] && [ ! -L "$file" ]; then
    { owner=$(stat -Lc %u /dev/stdin); read -r address; } <"$file" || true # Ray ends the line without a line break
  fi
  if [ "$owner" = "$(id -u)" ] || [ "$owner" = 0 ]; then
    echo "$address"
    return
  fi
  echo "$file is not this user's own file, so it is not trusted: remove it, and start Ray again" >&2
  return 1
}
