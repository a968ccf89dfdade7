#!/bin/sh
# Users and databases of the ledger and of MLflow, made when the database is.
set -eu
for name in journey_bandit mlflow; do
  psql -v ON_ERROR_STOP=1 -U postgres -v name="$name" -v secret="$LEDGER_PASSWORD" <<'SQL'
CREATE USER :"name" PASSWORD :'secret';
CREATE DATABASE :"name" OWNER :"name";
SQL
done
