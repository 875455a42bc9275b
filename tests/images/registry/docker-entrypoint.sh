#!/bin/sh
# Take a configuration file, or a command of the registry's, or any other command.
set -eu

case ${1:-} in
    *.yml | *.yaml) set -- registry serve "$@" ;;
    serve | garbage-collect | help | -*) set -- registry "$@" ;;
esac
exec "$@"
