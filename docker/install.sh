#!/bin/sh
# The steps that make a bare Debian 12 into Coverslip's image. The Dockerfile runs exactly
# these, one after the other; docker/rehearse.sh runs the same in a tree without an engine.
#
#   install.sh system            packages of the distribution
#   install.sh program SOURCE    Coverslip and its libraries, into /opt/coverslip
#   install.sh account           the user that it runs as, and its data folder
set -eu

case "${1:-}" in
system)
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    # postgresql-client: pg_dump and pg_restore, for `coverslip backup` with PostgreSQL
    apt-get install -q -y --no-install-recommends ca-certificates python3 python3-venv postgresql-client
    apt-get clean
    rm -rf /var/lib/apt/lists/*
    ;;
program)
    python3 -m venv /opt/coverslip
    /opt/coverslip/bin/pip install --no-cache-dir "${2:?where is the source?}[postgresql]"
    /opt/coverslip/bin/coverslip version
    ;;
account)
    groupadd --system --gid 11112 coverslip
    useradd --system --uid 11112 --gid coverslip --home-dir /data --shell /usr/sbin/nologin coverslip
    mkdir -p /data
    chown coverslip:coverslip /data
    chmod 0700 /data
    ;;
*)
    echo "install.sh: unknown step '${1:-}'" >&2
    exit 2
    ;;
esac
