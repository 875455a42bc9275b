#!/bin/bash
# Start InfluxDB, with a database and users made before if the data folder is new.
#
# Takes of the official image's environment: INFLUXDB_DB, INFLUXDB_ADMIN_USER, INFLUXDB_ADMIN_PASSWORD, INFLUXDB_USER,
# INFLUXDB_USER_PASSWORD, and INFLUXDB_HTTP_AUTH_ENABLED, which the server reads as well.
set -euo pipefail

quoted() { printf "'%s'" "${1//\'/\\\'}"; }

# What has to be asked of the server, a query a line.
queries() {
    if [[ -n ${INFLUXDB_ADMIN_USER:-} ]]; then
        echo "CREATE USER \"$INFLUXDB_ADMIN_USER\" WITH PASSWORD $(quoted "$INFLUXDB_ADMIN_PASSWORD") WITH ALL PRIVILEGES"
    fi
    if [[ -n ${INFLUXDB_DB:-} ]]; then
        echo "CREATE DATABASE \"$INFLUXDB_DB\""
    fi
    if [[ -n ${INFLUXDB_USER:-} ]]; then
        echo "CREATE USER \"$INFLUXDB_USER\" WITH PASSWORD $(quoted "$INFLUXDB_USER_PASSWORD")"
        echo "GRANT ALL ON \"$INFLUXDB_DB\" TO \"$INFLUXDB_USER\""
    fi
}

# On the container's own loopback: whoever waits for the server must not meet it before it is complete.
initialise() {
    INFLUXDB_HTTP_BIND_ADDRESS=127.0.0.1:8086 INFLUXDB_HTTP_AUTH_ENABLED=false influxd &
    local server=$! query
    until busybox wget -q -O /dev/null http://127.0.0.1:8086/ping; do
        kill -0 "$server"
        sleep 0.1
    done
    while read -r query; do
        busybox wget -q -O - --post-data "q=$(percent "$query")" http://127.0.0.1:8086/query | check "$query"
    done < <(queries)
    kill "$server" && wait "$server"
}

percent() { od -An -v -tx1 <<<"$1" | tr -d '\n' | tr ' ' %; }

check() {
    local answer
    answer=$(cat)
    if [[ $answer == *'"error"'* ]]; then
        echo "${1%% WITH PASSWORD *}: $answer" >&2
        exit 1
    fi
}

if [[ ${1:-} == -* ]]; then
    set -- influxd "$@"
fi
if [[ -n ${INFLUXDB_ADMIN_USER:-} ]]; then
    : "${INFLUXDB_ADMIN_PASSWORD:?is needed with INFLUXDB_ADMIN_USER}"
fi
if [[ -n ${INFLUXDB_USER:-} ]]; then
    : "${INFLUXDB_USER_PASSWORD:?is needed with INFLUXDB_USER}" "${INFLUXDB_DB:?is needed with INFLUXDB_USER}"
fi
if [[ ${1:-} == influxd && ! -d /var/lib/influxdb/meta && -n $(queries) ]]; then
    initialise
fi
exec "$@"
