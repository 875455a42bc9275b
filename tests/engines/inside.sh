#!/bin/sh
# Starts an engine in a root filesystem of its own. Called by start.py within new namespaces of network, mounts and
# process ids, which end with the engine, and with them all that it mounted and started.
#
#     inside.sh ROOT SHARED DATA STORE COMMAND…
set -eu
root=$1 shared=$2 data=$3 store=$4
shift 4

mount --bind "$root" "$root"  # pivot_root wants a mount
cd "$root"
mount -t proc proc proc
mount --rbind /sys sys  # the control groups are below it
mount --rbind /dev dev
mount -t tmpfs tmpfs dev/shm  # where Podman keeps its locks: another Podman's are nobody's business
mount -t tmpfs tmpfs run
mkdir -p run/before "./$shared" "./$store"
mount --bind "$shared" "./$shared"  # at the same path on both sides
mount --bind "$data" "./$store"
pivot_root . run/before
cd /
umount -l /run/before
exec "$@"
