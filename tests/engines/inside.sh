#!/bin/sh
# Starts an engine in its own root filesystem. start.py calls it in new namespaces for network, mounts and process ids.
# They end with the engine, together with everything that it mounted and started.
#
#     inside.sh ROOT SHARED DATA STORE COMMAND…
set -eu
root=$1 shared=$2 data=$3 store=$4
shift 4

mount --bind "$root" "$root"  # pivot_root requires a mount point
cd "$root"
mount -t proc proc proc
mount --rbind /sys sys  # includes the cgroups
mount --rbind /dev dev
mount -t tmpfs tmpfs dev/shm  # Podman keeps its locks here and must not see those of another Podman
mount -t tmpfs tmpfs run
mkdir -p run/before "./$shared" "./$store"
mount --bind "$shared" "./$shared"  # at the same path on both sides
mount --bind "$data" "./$store"
pivot_root . run/before
cd /
umount -l /run/before
# Podman 6 supports only cgroups of version 2.
if command -v podman >/dev/null && podman --version | grep -Eq ' ([6-9]|[1-9][0-9])\.' && ! test -e /sys/fs/cgroup/cgroup.procs; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
exec "$@"
