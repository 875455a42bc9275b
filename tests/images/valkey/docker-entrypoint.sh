#!/bin/bash
# Start Valkey as its own user, open to other containers and the host unless the arguments or a configuration say otherwise.
set -euo pipefail

if [[ ${1:-} == -* || ${1:-} == *.conf ]]; then
    set -- valkey-server "$@"
fi
if [[ ${1:-} == valkey-server ]]; then
    # The official image's server has another default than Debian's: without a password it still listens to all.
    if [[ " $* " != *" --protected-mode "* ]] && ! { [[ -f ${2:-} ]] && grep -q '^\s*protected-mode' "$2"; }; then
        set -- "$@" --protected-mode no
    fi
    if [[ $EUID == 0 ]]; then
        find . ! -user valkey -exec chown valkey: {} +
        set -- setpriv --reuid=valkey --regid=valkey --init-groups "$@"
    fi
fi
exec "$@"
