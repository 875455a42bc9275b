#!/bin/sh
# Runs a command in another root filesystem, with the files, sockets, network and processes of this machine, as root.
#
#     unshare --mount in_tree.sh TREE COMMAND…
set -eu
tree=$1
shift

mount --make-rprivate /
for path in /*; do
    case $path in
    /bin | /boot | /etc | /lib* | /lost+found | /sbin | /usr | /var) ;;  # the tree's own
    *) test ! -d "$path" || { mkdir -p "$tree$path" && mount --rbind "$path" "$tree$path"; } ;;
    esac
done
for path in /etc/hosts /etc/pip.conf /etc/resolv.conf /etc/ssl /etc/xdg; do
    if test -d "$path"; then
        mkdir -p "$tree$path"
    elif test -e "$path"; then
        test -e "$tree$path" || : > "$tree$path"
    else
        continue
    fi
    mount --bind "$path" "$tree$path"
done
exec chroot "$tree" env --chdir "$PWD" "$@"
