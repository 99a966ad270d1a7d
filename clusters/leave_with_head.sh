#!/bin/bash
# On a worker: `ray down` ends Ray on a head of one's own only; this ends it here when the head was gone for a minute.
#   leave_with_head.sh ADDRESS
set -u
if [ "${2:-}" != watch ]; then
  setsid "$0" "$1" watch >/dev/null 2>&1 </dev/null &
  exit
fi
exec 9>"$HOME/.ray/leave_with_head.$(uname -n).lock" # not in /tmp/ray, where every user may put a link
flock --nonblock 9 || exit # one that was started before is still here
missed=0
while [ $missed -lt 6 ]; do
  sleep 10
  missed=$((missed + 1))
  timeout 5 bash -c "</dev/tcp/$1/6379" && missed=0
done
ray stop 9>&-
