#!/bin/bash
# Fill the templates of the configuration from the environment, run the scripts that are there, and start nginx.
set -euo pipefail

if [[ ${1:-} == nginx* ]]; then
    names=$(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/${\1}/p')
    for template in /etc/nginx/templates/*.template; do
        [[ -f $template ]] || continue
        target=${template#/etc/nginx/templates/}
        envsubst "$names" <"$template" >"/etc/nginx/conf.d/${target%.template}"
    done
    for script in /docker-entrypoint.d/*.sh; do
        [[ ! -x $script ]] || "$script"
    done
fi
exec "$@"
