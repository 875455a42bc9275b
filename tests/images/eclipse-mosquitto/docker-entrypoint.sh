#!/bin/sh
# Hand the folders to the user that the server itself changes to.
set -eu

[ "$(id -u)" != 0 ] || [ ! -d /mosquitto ] || chown -R mosquitto:mosquitto /mosquitto
exec "$@"
