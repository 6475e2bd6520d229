# shellcheck shell=bash disable=SC2034  # results are read by the scripts that source this
# Installs PostgreSQL, and starts private servers. Sourced after lib.sh and broker.sh.
#
# A server that is started here is private: own port, own data, own password, reachable from this machine only. No service
# and no cluster of the system is started, stopped or configured for it.

postgresql_bin=     # find_postgresql
postgresql_user=()  # find_postgresql: what runs a program as a user who may run a server
superuser_password= # make_private_postgresql

# Debian keeps the server's programs out of the path.
install_postgresql() {
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null ||
        install_without_service postgresql postgresql.service
}

# The newest server of those that are installed. It refuses to run as root.
find_postgresql() {
    local initdb
    initdb=$(compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1)
    [[ -n $initdb ]] || initdb=$(command -v initdb) || die "initdb is not installed; it comes with PostgreSQL"
    postgresql_bin=$(dirname "$(readlink -f "$initdb")")
    postgresql_user=()
    if ((EUID == 0)); then
        getent passwd postgres >/dev/null || die "PostgreSQL does not run as root, and there is no user postgres to run it"
        postgresql_user=(setpriv --reuid=postgres --regid=postgres --init-groups)
    fi
}

# Makes a directory that belongs to the user who runs servers; the directories above must let it pass.
make_server_directory() { # <directory>
    mkdir -m 700 "$1"
    ((EUID != 0)) || chown postgres: "$1"
}

# Makes the data of a server, whose administrator is postgres with $superuser_password.
make_private_postgresql() { # <directory> <line of postgresql.conf>...
    local directory=$1
    shift
    superuser_password=$(random_hex 16)
    make_server_directory "$directory"
    (umask 077 && echo "$superuser_password" >"$directory.password")
    ((EUID != 0)) || chown postgres: "$directory.password"
    "${postgresql_user[@]}" "$postgresql_bin/initdb" --username=postgres --pwfile="$directory.password" \
        --auth=scram-sha-256 --no-locale --encoding=UTF8 -D "$directory" >"$directory.initdb.log" 2>&1 ||
        die "initdb failed: $(tail -n 5 "$directory.initdb.log")"
    rm -f "$directory.password"
    printf '%s\n' "listen_addresses = '127.0.0.1'" "unix_socket_directories = ''" "$@" >>"$directory/postgresql.conf"
}

# Starts a server, and leaves its process in $started. As a standby it goes by the name of its directory.
run_private_postgresql() { # <directory> <port>
    start "$1.log" "${postgresql_user[@]}" "$postgresql_bin/postgres" -D "$1" -p "$2" -c "cluster_name=${1##*/}"
}

postgresql_answers() { "$postgresql_bin/pg_isready" -q -h 127.0.0.1 -p "$1"; } # <port>

# Runs SQL as the administrator and prints what it says. The commit waits for no standby.
administer() { # <port> <database> <sql>
    PGPASSWORD=$superuser_password PGOPTIONS='-c synchronous_commit=local' PGCONNECT_TIMEOUT=5 \
        "$postgresql_bin/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$1" -U postgres -d "$2" -c "$3"
}

# Makes the data of a standby from its primary, and does not wait for the disk: only processes are killed here. Takes a
# directory that is there away first.
copy_private_postgresql() { # <directory> <port of the primary>
    rm -rf -- "${1:?}"
    make_server_directory "$1"
    # The password goes into the standby's configuration, which only its user may read.
    PGPASSWORD=$superuser_password "${postgresql_user[@]}" "$postgresql_bin/pg_basebackup" -D "$1" \
        -d "host=127.0.0.1 port=$2 user=postgres" --write-recovery-conf --wal-method=stream --checkpoint=fast --no-sync \
        >"$1.basebackup.log" 2>&1 || die "pg_basebackup failed: $(tail -n 5 "$1.basebackup.log")"
}
