#!/bin/sh
# Saves the databases and the store, and brings them back.
#
#   sh backup.sh save FOLDER               # a new folder in it, named by the time; older than 14 days are removed
#   sh backup.sh restore FOLDER/TIME       # with the servers stopped; databases.sql has been run if they are gone
#
# PGHOST, PGPORT, PGUSER and PGPASSWORD say where PostgreSQL is; CUVEE_STORE where the store is, if it is a folder.
set -eu
umask 077
case "${1-}" in
    save)
        to="$2/$(date -u +%Y-%m-%dT%H%M%SZ)"
        rm -rf "$2"/*.part
        mkdir -p "$to.part"
        for database in prefect mlflow mlflow_auth; do
            pg_dump --format custom --file "$to.part/$database.dump" "$database"
            pg_restore --list "$to.part/$database.dump" > "$to.part/$database.list"
        done
        if [ -d "${CUVEE_STORE:-}" ]; then # 1: a file changed meanwhile, as a sweep's drafts do
            tar -C "$CUVEE_STORE" -cf "$to.part/store.tar" . || [ $? -eq 1 ]
        fi
        mv "$to.part" "$to"
        case "${CUVEE_STORE:-}" in
            "" | *://*) ;; # none, or an object store, which keeps itself
            *) # the databases are saved; the older backups, which may hold the store, stay
                [ -d "$CUVEE_STORE" ] || { echo "backup.sh: there is no store in $CUVEE_STORE" >&2; exit 2; } ;;
        esac
        find "$2" -mindepth 1 -maxdepth 1 -type d -name '20*Z' -mtime "+${CUVEE_BACKUP_DAYS:-14}" -exec rm -r {} +
        echo "saved $to" ;;
    restore)
        for database in prefect mlflow mlflow_auth; do
            pg_restore --clean --if-exists --no-owner --role "${database%_auth}" --single-transaction \
                --dbname "$database" "$2/$database.dump"
        done
        if [ -f "$2/store.tar" ] && [ -n "${CUVEE_STORE:-}" ]; then
            mkdir -p "$CUVEE_STORE"
            tar -C "$CUVEE_STORE" -xf "$2/store.tar"
        fi
        echo "restored $2" ;;
    *) echo "backup.sh save FOLDER, or backup.sh restore FOLDER/TIME" >&2; exit 2 ;;
esac
