#!/bin/bash
# Start PostgreSQL, in a new database cluster if the data folder holds none.
#
# Takes the environment of the official image: POSTGRES_PASSWORD, POSTGRES_USER, POSTGRES_DB, POSTGRES_INITDB_ARGS,
# POSTGRES_HOST_AUTH_METHOD (each also as NAME_FILE, a file that holds the value), PGDATA, and the scripts in
# /docker-entrypoint-initdb.d.
set -euo pipefail

say() { echo "entrypoint: $*" >&2; }

stop() {
    printf '%s\n' "$@" >&2
    exit 1
}

# setting NAME DEFAULT: give NAME its value, from itself, from the file that NAME_FILE names, or the default.
setting() {
    local file="$1_FILE"
    if [[ -n ${!1:-} && -n ${!file:-} ]]; then
        stop "$1 and $file are both set; set one of them"
    elif [[ -n ${!file:-} ]]; then
        export "$1=$(<"${!file}")"
    else
        export "$1=${!1:-$2}"
    fi
    unset "$file"
}

main() {
    if [[ ${1:-} == -* ]]; then
        set -- postgres "$@"
    fi
    if [[ ${1:-} != postgres ]] || wants_words "$@"; then
        exec "$@"
    fi
    if [[ $EUID == 0 ]]; then
        become_postgres "$@"
    fi
    own_data_folder
    if [[ ! -s $PGDATA/PG_VERSION ]]; then
        read_settings
        init_cluster
        start_temporary_server "$@"
        create_database
        run_init_scripts
        stop_temporary_server
        say "PostgreSQL init process complete; starting the server for all"
    else
        say "the data folder holds a database: nothing to initialise"
    fi
    unset PGPASSWORD
    exec "$@"
}

# Whether postgres is only asked for its version, its help or a setting.
wants_words() {
    local each
    for each; do
        case $each in -'?' | --help | --describe-config | -V | --version | -C) return 0 ;; esac
    done
    return 1
}

# The server refuses to run as root. Called again as its user, this script goes on from the top.
become_postgres() {
    mkdir -p "$PGDATA" /var/run/postgresql
    find "$PGDATA" /var/run/postgresql ! -user postgres -exec chown postgres: {} +
    export HOME=/var/lib/postgresql
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$BASH_SOURCE" "$@"
}

own_data_folder() {
    # With `--user` a new volume's top folder is another's, and initdb could not close it to others: take one within.
    if [[ -d $PGDATA && ! -O $PGDATA && ! -e $PGDATA/PG_VERSION ]]; then
        export PGDATA="$PGDATA/of-user-$EUID"
    fi
    mkdir -p "$PGDATA"
    chmod 700 "$PGDATA"
}

read_settings() {
    setting POSTGRES_PASSWORD ""
    setting POSTGRES_USER postgres
    setting POSTGRES_DB "$POSTGRES_USER"
    setting POSTGRES_INITDB_ARGS ""
    setting POSTGRES_HOST_AUTH_METHOD ""
    if [[ -z $POSTGRES_PASSWORD && $POSTGRES_HOST_AUTH_METHOD != trust ]]; then
        stop "Error: the database is new and no password is given for its superuser." \
            "Set POSTGRES_PASSWORD to one that is not empty, for example: docker run -e POSTGRES_PASSWORD=secret ..." \
            "POSTGRES_HOST_AUTH_METHOD=trust lets everybody in without a password instead."
    fi
    export PGPASSWORD="$POSTGRES_PASSWORD"
    unset PGHOST PGHOSTADDR
}

init_cluster() {
    local extra=() names=()
    eval "extra=($POSTGRES_INITDB_ARGS)" # which may quote its words
    if [[ -n $POSTGRES_PASSWORD ]]; then
        extra+=(--pwfile=/dev/stdin) # argument lists are seen by everybody
    fi
    if ! getent passwd "$EUID" >/dev/null; then
        # initdb wants to know the name of its user, and a number given as `--user` has none.
        printf 'postgres:x:%s:%s::%s:/bin/false\n' "$EUID" "$(id -g)" "$PGDATA" >/tmp/passwd
        printf 'postgres:x:%s:\n' "$(id -g)" >/tmp/group
        names=(env LD_PRELOAD="$(echo /usr/lib/*/libnss_wrapper.so)" NSS_WRAPPER_PASSWD=/tmp/passwd NSS_WRAPPER_GROUP=/tmp/group)
    fi
    "${names[@]}" initdb --username="$POSTGRES_USER" -E UTF8 --locale=C.UTF-8 "${extra[@]}" <<<"$POSTGRES_PASSWORD"
    rm -f /tmp/passwd /tmp/group
    printf '\nhost all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
}

# For the scripts alone, on its socket: whoever waits for the server must not meet it before it is complete.
start_temporary_server() {
    shift
    local options
    options=$(printf '%q ' "$@" -c listen_addresses= -p "${PGPORT:-5432}")
    pg_ctl -D "$PGDATA" -o "$options" -w start
}

stop_temporary_server() {
    pg_ctl -D "$PGDATA" -m fast -w stop
}

create_database() {
    if [[ $POSTGRES_DB != postgres ]]; then
        run_psql --dbname postgres --set name="$POSTGRES_DB" <<<'CREATE DATABASE :"name"'
    fi
}

run_psql() {
    psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --no-password --no-psqlrc "$@"
}

run_init_scripts() {
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh)
                say "running $file"
                # Like the official image: one that is no program may set variables for the next.
                if [[ -x $file ]]; then "$file"; else . "$file"; fi
                ;;
            *.sql) say "running $file" && run_psql --dbname "$POSTGRES_DB" --file "$file" ;;
            *.sql.gz) say "running $file" && gunzip --stdout "$file" | run_psql --dbname "$POSTGRES_DB" ;;
            */\*) ;;
            *) say "ignoring $file" ;;
        esac
    done
}

main "$@"
