#!/bin/sh
# Take options of memcached's, or any other command.
set -eu

case ${1:-} in -*) set -- memcached "$@" ;; esac
exec "$@"
