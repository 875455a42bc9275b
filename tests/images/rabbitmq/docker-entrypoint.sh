#!/bin/bash
# Start RabbitMQ as its own user.
set -euo pipefail

if [[ ${1:-} == rabbitmq* && $EUID == 0 ]]; then
    find /var/lib/rabbitmq ! -user rabbitmq -exec chown rabbitmq: {} +
    exec setpriv --reuid=rabbitmq --regid=rabbitmq --init-groups "$BASH_SOURCE" "$@"
fi
# Erlang reserves memory for as many files as it may open, and engines allow a million.
ulimit -n 65536 2>/dev/null || true
exec "$@"
