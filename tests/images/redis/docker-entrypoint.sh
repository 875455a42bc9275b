#!/bin/bash
# Start Redis as its own user, open to other containers and the host unless the arguments or a configuration say otherwise.
set -euo pipefail

if [[ ${1:-} == -* || ${1:-} == *.conf ]]; then
    set -- redis-server "$@"
fi
if [[ ${1:-} == redis-server ]]; then
    # The official image's server has another default than Debian's: without a password it still listens to all.
    if [[ " $* " != *" --protected-mode "* ]] && ! { [[ -f ${2:-} ]] && grep -q '^\s*protected-mode' "$2"; }; then
        set -- "$@" --protected-mode no
    fi
    if [[ $EUID == 0 ]]; then
        find . ! -user redis -exec chown redis: {} +
        set -- setpriv --reuid=redis --regid=redis --init-groups "$@"
    fi
fi
exec "$@"
