#!/bin/bash
# The first process of a host: its own home, /tmp/ray and /dev/shm, then an SSH server.
#   node.sh FOLDER NAME ADDRESS HOME [KEEP…]      HOME: of the account; KEEP: folders below it that stay visible
set -eu
lab=$1 name=$2 address=$3 base=$1/$2 home=$4
shift 4
mkdir -p "$base/home/.ssh" "$base/ray" /tmp/ray /run/sshd
hostname "$name"
mount -t tmpfs -o size=4g tmpfs /dev/shm
mount --bind "$base/ray" /tmp/ray
for folder in "$@"; do
  mkdir -p "$base/home/${folder#"$home"/}"
  mount --bind "$folder" "$base/home/${folder#"$home"/}"
done
cp "$lab/key.pub" "$base/home/.ssh/authorized_keys"
chmod 700 "$base/home" "$base/home/.ssh"
touch "$base/home/.bashrc"
echo '[ -f ~/.bashrc ] && . ~/.bashrc' >"$base/home/.profile"
mount --rbind "$base/home" "$home"
cat >"$base/sshd_config" <<CONFIG
ListenAddress $address
HostKey $lab/hostkey
PidFile none
AuthorizedKeysFile .ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
MaxStartups 50
Subsystem sftp internal-sftp
CONFIG
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME="$home" "$(command -v sshd || echo /usr/sbin/sshd)" -D -e -f "$base/sshd_config"
