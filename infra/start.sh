#!/bin/sh
# Starts a server if the secrets that it needs are there, each its own: start.sh NAME ... [-- COMMAND ...]
# (without a command it only checks). A variable called ..._AUTH or ..._AUTH_STRING is user:secret.
set -eu
refuse() {
    echo "cuvee: $1; set it in infra/.env or in Kubernetes' secret \`cuvee\` (openssl rand -hex 24)" >&2
    exit 2
}
seen=" "
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    value=$(printenv "$1" | tr -d '[:space:]') || true
    case "$1" in
        *_AUTH | *_AUTH_STRING)
            case "$value" in
                ?*:?*) value=${value#*:} ;;
                *) refuse "$1 needs a user and a secret, user:secret, and one of them is empty" ;;
            esac ;;
    esac
    [ -n "$value" ] || refuse "$1 is empty"
    case "$seen" in
        *" $value "*) refuse "$1 is the secret of another server as well: each has its own" ;;
    esac
    seen="$seen$value "
    shift
done
[ $# -gt 1 ] || exit 0
shift
exec "$@"
