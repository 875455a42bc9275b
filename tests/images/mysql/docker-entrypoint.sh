#!/bin/bash
# Start MySQL, in a new data folder if there is none.
#
# Takes the environment of the official image, each name with MYSQL_ before it and also as NAME_FILE, a file that
# holds the value: ROOT_PASSWORD, ALLOW_EMPTY_PASSWORD, RANDOM_ROOT_PASSWORD, ROOT_HOST, DATABASE, USER,
# PASSWORD; and the scripts in /docker-entrypoint-initdb.d.
set -euo pipefail

DATA=/var/lib/mysql

say() { echo "entrypoint: $*" >&2; }

stop() {
    printf '%s\n' "$@" >&2
    exit 1
}

# setting NAME DEFAULT: give the shell's variable NAME a value from the environment, or the default.
setting() {
    local each file
    for each in "MYSQL_$1"; do
        file="${each}_FILE"
        if [[ -n ${!each:-} ]]; then
            printf -v "$1" %s "${!each}" && return
        elif [[ -n ${!file:-} ]]; then
            printf -v "$1" %s "$(<"${!file}")" && return
        fi
    done
    printf -v "$1" %s "$2"
}

main() {
    if [[ ${1:-} == -* ]]; then
        set -- mysqld "$@"
    fi
    if [[ ${1:-} != mysqld ]] || [[ " $* " == *" --help "* || " $* " == *" --version "* ]]; then
        exec "$@"
    fi
    if [[ $EUID == 0 ]]; then
        find "$DATA" /run/mysqld ! -user mysql -exec chown mysql: {} +
        exec setpriv --reuid=mysql --regid=mysql --init-groups "$BASH_SOURCE" "$@"
    fi
    if [[ ! -d $DATA/mysql ]]; then
        read_settings
        "$@" --initialize-insecure
        start_temporary_server "$@"
        make_users_and_database
        run_init_scripts
        kill "$server" && wait "$server"
        say "MySQL init process done; starting the server for all"
    fi
    exec "$@"
}

read_settings() {
    local each
    for each in ROOT_PASSWORD ALLOW_EMPTY_PASSWORD RANDOM_ROOT_PASSWORD DATABASE USER PASSWORD; do
        setting "$each" ""
    done
    setting ROOT_HOST %
    if [[ -n $RANDOM_ROOT_PASSWORD ]]; then
        ROOT_PASSWORD=$(head -c 24 /dev/urandom | base64)
        say "GENERATED ROOT PASSWORD: $ROOT_PASSWORD"
    elif [[ -z $ROOT_PASSWORD && -z $ALLOW_EMPTY_PASSWORD ]]; then
        stop "Database is uninitialized and password option is not specified" \
            "Set one of MYSQL_ROOT_PASSWORD, MYSQL_ALLOW_EMPTY_PASSWORD and MYSQL_RANDOM_ROOT_PASSWORD."
    fi
}

# For the scripts alone, on its socket: whoever waits for the server must not meet it before it is complete.
start_temporary_server() {
    "$@" --skip-networking --mysqlx=OFF &
    server=$!
    until run_sql <<<'SELECT 1' >/dev/null 2>&1; do
        kill -0 "$server" || stop "the server for the initialisation has ended"
        sleep 0.1
    done
}

run_sql() {
    MYSQL_PWD="${CURRENT_PASSWORD:-}" mysql --protocol=socket -uroot --default-character-set=utf8mb4 "$@"
}

# quoted TEXT: as a literal of SQL.
quoted() {
    local text=${1//\\/\\\\}
    printf "'%s'" "${text//\'/\\\'}"
}

make_users_and_database() {
    {
        if [[ -n $DATABASE ]]; then
            printf 'CREATE DATABASE IF NOT EXISTS `%s`;\n' "$DATABASE"
        fi
        if [[ -n $USER && -n $PASSWORD ]]; then
            printf "CREATE USER %s@'%%' IDENTIFIED BY %s;\n" "$(quoted "$USER")" "$(quoted "$PASSWORD")"
            if [[ -n $DATABASE ]]; then
                printf "GRANT ALL ON \`%s\`.* TO %s@'%%';\n" "${DATABASE//_/\\_}" "$(quoted "$USER")"
            fi
        fi
        if [[ $ROOT_HOST != localhost ]]; then
            printf 'CREATE USER root@%s IDENTIFIED BY %s;\n' "$(quoted "$ROOT_HOST")" "$(quoted "$ROOT_PASSWORD")"
            printf 'GRANT ALL ON *.* TO root@%s WITH GRANT OPTION;\n' "$(quoted "$ROOT_HOST")"
        fi
        printf 'ALTER USER root@localhost IDENTIFIED BY %s;\n' "$(quoted "$ROOT_PASSWORD")"
    } | run_sql
    CURRENT_PASSWORD=$ROOT_PASSWORD
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
            *.sql) say "running $file" && run_sql "$DATABASE" <"$file" ;;
            *.sql.gz) say "running $file" && gunzip --stdout "$file" | run_sql "$DATABASE" ;;
            */\*) ;;
            *) say "ignoring $file" ;;
        esac
    done
}

main "$@"
