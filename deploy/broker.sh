# shellcheck shell=bash disable=SC2034  # results are read by the scripts that source this
# Finds or starts a RabbitMQ. Sourced after lib.sh; each function that succeeds leaves $AMQP_URL exported.
#
# A node that is started here is private: own ports, own data, own cookie, own epmd, reachable from this
# machine only. No service of the system is started, stopped or configured for it.

broker_is_ours=   # find_or_start_broker: "yes" when the broker goes away again at the end
rabbitmqctl=      # start_private_rabbitmq: the program that looks into the private node
epmd_port=        # start_private_epmd

# True when something on the port speaks AMQP 0-9-1 and lets guest/guest in; prints what it says it is. It is the
# handshake itself up to Connection.Tune, so "ready" means that a client would get in, and not just that a port is open.
amqp_product() { # <port>
    # shellcheck disable=SC2016  # the inner bash expands these
    timeout 5 bash -c '
        exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
        read_hex() { dd bs=1 count="$1" <&3 2>/dev/null | od -An -v -tx1 | tr -d " \n"; }
        # Reads one frame and leaves class and method of it in $method.
        read_method() {
            local header
            header=$(read_hex 7)
            # A frame of a handshake has some hundred bytes; whoever announces more is nobody we want.
            [[ $header == 010000* && ${#header} == 14 ]] && ((16#${header:6} < 16384)) || exit 1
            payload=$(read_hex $((16#${header:6} + 1)))
            method=${payload:0:8}
        }
        # The value of a text among the server properties: name, "S", length in four bytes. It is a stranger who says it.
        property() { # <name in hex>
            local value=${payload#*"$1"53}
            [[ $value != "$payload" ]] || return 0
            value=${value:8:$((2 * 16#${value:0:8} > 60 ? 60 : 2 * 16#${value:0:8}))}
            printf "%b" "$(sed "s/../\\\\x&/g" <<<"$value")" | tr -cd "[:alnum:]. _-"
        }
        printf "AMQP\x00\x00\x09\x01" >&3
        read_method
        [[ $method == 000a000a ]] || exit 1   # Connection.Start
        product=$(property 0770726f64756374)
        version=$(property 0776657273696f6e)
        # Connection.StartOk: no client properties, PLAIN, \0guest\0guest, en_US
        printf "\x01\x00\x00\x00\x00\x00\x24\x00\x0a\x00\x0b\x00\x00\x00\x00\x05PLAIN" >&3
        printf "\x00\x00\x00\x0c\x00guest\x00guest\x05en_US\xce" >&3
        read_method
        [[ $method == 000a001e ]] || exit 1   # Connection.Tune: the credentials were good
        echo "${product:-something that does not say its name}${version:+ $version}"
    ' amqp_product "$1" 2>/dev/null
}
amqp_answers() { amqp_product "$1" >/dev/null; } # <port>

# Prints the user whose process listens on a port of 127.0.0.1 or of all addresses; nothing if that cannot be told.
listener_owner() { # <port>
    local hex owner
    hex=$(printf '%04X' "$1")
    # State 0A is LISTEN; the eighth column is the user. 127.0.0.1 in the kernel's order, as IPv4 and mapped into IPv6.
    owner=$(awk -v port="$hex" '$4 == "0A" {
            split($2, local, ":")
            if (local[2] == port && local[1] ~ /^(0100007F|0+|0000000000000000FFFF00000100007F)$/) { print $8; exit }
        }' /proc/net/tcp /proc/net/tcp6 2>/dev/null)
    [[ -z $owner ]] || getent passwd "$owner" | cut -d: -f1 | grep . || echo "$owner"
}

# Prints the folder with the real scripts. Debian's /usr/sbin/rabbitmq-server is a wrapper that changes the
# user and fixes every path, so it cannot start a second node.
rabbitmq_scripts() {
    local found
    if [[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]]; then
        echo /usr/lib/rabbitmq/bin
    elif found=$(command -v rabbitmq-server) && ! grep -qs 'su rabbitmq' "$found"; then
        dirname "$(readlink -f "$found")"
    else
        return 1
    fi
}

# The one switch that Debian's maintainer scripts ask before they start a service. It is ours only while
# apt runs; a policy that the machine already has is left alone. Every first start is forbidden, not only
# that of the package: RabbitMQ brings logrotate along, and that one cron.
#
# Left behind, it would keep every service of the machine from starting. So it names the process that it is for, counts
# for nothing once that one is gone, and a guard in a session of its own removes it then, even if we were killed.
service_policy=/usr/sbin/policy-rc.d
service_policy_mark='# by countersign, for one installation'
forbid_service_start() {
    remove_stale_service_policy
    [[ ! -e $service_policy ]] || return 0
    at_exit allow_service_start
    local text
    # A start that the runlevel would not ask for comes as "(start)"; services that already run may restart.
    # shellcheck disable=SC2016  # the policy's own $2
    text=$(printf '%s\n' '#!/bin/sh' "$service_policy_mark: process $$" "[ -d /proc/$$ ] || exit 0" \
        'case "$2" in *restart*) exit 0 ;; *start*) exit 101 ;; esac')
    # The guard writes it: if we did, and were killed before the guard is there, nobody would remove it.
    # shellcheck disable=SC2016  # the inner shell expands these
    as_root setsid sh -c 'printf "%s\n" "$3" >"$2" && chmod 755 "$2"
        while [ -d "/proc/$1" ] && grep -qs "process $1\$" "$2"; do sleep 0.2; done
        ! grep -qs "process $1\$" "$2" || rm -f -- "$2"' guard $$ "$service_policy" "$text" </dev/null >/dev/null 2>&1 &
    wait_until 30 $$ test -x "$service_policy" || die "cannot write $service_policy"
}
allow_service_start() {
    ! grep -qs "^$service_policy_mark: process $$\$" "$service_policy" || as_root rm -f -- "$service_policy"
}

# Removes a policy of ours whose process is gone: the machine went down in the middle of an installation.
remove_stale_service_policy() {
    local process
    grep -qs "^$service_policy_mark" "$service_policy" || return 0
    process=$(sed -n "s/^$service_policy_mark: process //p" "$service_policy")
    [[ -z $process || ! -d /proc/$process ]] || return 0
    note "removing $service_policy, which an installation of ours that was cut short has left behind"
    as_root rm -f -- "$service_policy"
}

# Installs a package without letting it start its services, now or at the next boot.
install_without_service() { # <package> <service>...
    local package=$1
    shift
    forbid_service_start
    apt_install "$package"
    allow_service_start
    # The packages enable their services for the next boot; that is more than was asked for.
    if command -v systemctl >/dev/null; then
        as_root systemctl --quiet disable "$@" 2>/dev/null || true
    fi
    note "installed $package; its system service does not run"
}

# Installs rabbitmq-server without letting the package start its service.
install_rabbitmq() {
    remove_stale_service_policy
    rabbitmq_scripts >/dev/null && return
    local services=(rabbitmq-server.service)
    find_epmd >/dev/null || services+=(epmd.service epmd.socket)
    local someone_was_there=
    ! port_is_taken 5672 || someone_was_there=yes
    install_without_service rabbitmq-server "${services[@]}"
    # Only when the machine has a policy of its own that permits it.
    if [[ -z $someone_was_there ]] && port_is_taken 5672; then
        as_root service rabbitmq-server stop >&2 || note "the package started its service, and it could not be stopped"
    fi
    rabbitmq_scripts >/dev/null || die "rabbitmq-server was installed but its scripts are not where Debian puts them"
}

# Starts a private node with everything it writes under <directory>; registers its end with at_exit.
start_private_rabbitmq() { # <directory>
    local directory=$1 amqp_port
    pick_port; amqp_port=$port
    start_private_epmd "$directory"
    make_private_node "$directory" "$amqp_port" "$(random_hex 20)"
    say "starting a private RabbitMQ node on 127.0.0.1:$amqp_port (data in $directory)"
    run_private_node "$directory"
    at_exit "stop_process $started 20"
    await_private_node "$directory" "$started" "$amqp_port"
    AMQP_URL=amqp://guest:guest@127.0.0.1:$amqp_port/%2f
    export AMQP_URL
    rabbitmqctl=$directory/rabbitmqctl
    note "ready; look into it with $rabbitmqctl list_queues name messages"
}

# Starts an epmd for private nodes and leaves its port in $epmd_port. It is started by hand so that it ends with us; a node
# would leave a daemon behind.
start_private_epmd() { # <directory>
    local epmd pid
    epmd=$(find_epmd) || die "epmd is missing; it comes with Erlang"
    mkdir -p "$1"
    pick_port; epmd_port=$port
    start "$1/epmd.log" env ERL_EPMD_ADDRESS=127.0.0.1 "$epmd" -port "$epmd_port"
    pid=$started
    at_exit "stop_process $pid 5"
    wait_until 10 "$pid" port_is_taken "$epmd_port" || die "epmd did not start: $(tail -n 5 "$1/epmd.log")"
}

# Writes what the private node countersign-<amqp port>@localhost needs. Nodes with one epmd and one cookie can be a cluster.
make_private_node() { # <directory> <amqp port> <cookie>
    local directory=$1 amqp_port=$2 cookie=$3 scripts dist_port
    scripts=$(rabbitmq_scripts) || die "rabbitmq-server is not installed"
    pick_port; dist_port=$port
    mkdir -p "$directory"
    (umask 077 && printf '%s' "$cookie" >"$directory/.erlang.cookie" && chmod 400 "$directory/.erlang.cookie")
    echo '[].' >"$directory/enabled_plugins"
    : >"$directory/rabbitmq-env.conf"
    cat >"$directory/rabbitmq.conf" <<-END
		listeners.tcp.1 = 127.0.0.1:$amqp_port
		log.file.level = info
		# A demo and tests hold little; the defaults would stop publishers on a small or full machine.
		disk_free_limit.absolute = 50MB
	END
    # One file says where the node lives: the server starts with it, and so does the rabbitmqctl beside it.
    cat >"$directory/environment" <<-END
		export HOME='$directory'
		export ERL_EPMD_PORT=$epmd_port ERL_EPMD_ADDRESS=127.0.0.1
		export RABBITMQ_NODENAME=countersign-$amqp_port@localhost RABBITMQ_DIST_PORT=$dist_port
		export RABBITMQ_CONF_ENV_FILE='$directory/rabbitmq-env.conf' RABBITMQ_CONFIG_FILE='$directory/rabbitmq.conf'
		export RABBITMQ_ENABLED_PLUGINS_FILE='$directory/enabled_plugins'
		export RABBITMQ_MNESIA_BASE='$directory/data' RABBITMQ_LOG_BASE='$directory/log'
		export RABBITMQ_PID_FILE='$directory/rabbitmq.pid'
		unset RABBITMQ_NODE_PORT RABBITMQ_NODE_IP_ADDRESS RABBITMQ_MNESIA_DIR RABBITMQ_LOGS RABBITMQ_USE_LONGNAME
		unset RABBITMQ_ADVANCED_CONFIG_FILE RABBITMQ_SERVER_START_ARGS RABBITMQ_SERVER_ERL_ARGS NOTIFY_SOCKET
	END
    # Two schedulers that sleep instead of spinning: the node shares the machine with what it serves.
    cat >"$directory/start" <<-END
		#!/bin/sh
		. '$directory/environment'
		cd '$directory' || exit 1   # a crash dump of Erlang lands in the current directory
		export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}'
		exec '$scripts/rabbitmq-server'
	END
    printf '#!/bin/sh\n. %q\nexec %q "$@"\n' "$directory/environment" "$scripts/rabbitmqctl" >"$directory/rabbitmqctl"
    chmod 700 "$directory/start" "$directory/rabbitmqctl"
}

# Starts a node that was made, for the first time or again; leaves its process in $started.
run_private_node() { start "$1/startup.log" "$1/start"; } # <directory>

await_private_node() { # <directory> <process> <amqp port>
    wait_until 120 "$2" amqp_answers "$3" && return
    tail -n 20 "$1/startup.log" >&2
    die "the private RabbitMQ node on 127.0.0.1:$3 did not become ready"
}

find_epmd() {
    local candidate
    ! command -v epmd || return 0
    for candidate in /usr/lib/erlang/bin/epmd /usr/lib/erlang/erts-*/bin/epmd; do
        [[ ! -x $candidate ]] || { echo "$candidate"; return; }
    done
    return 1
}

# A digest ends with the next update of the image, so by default it is a tag; RABBITMQ_IMAGE=rabbitmq@sha256:... is exact.
rabbitmq_image=${RABBITMQ_IMAGE:-rabbitmq:4-alpine}

# Starts RabbitMQ in docker. Fails, with a word, when the image cannot be read: there is another way then.
start_docker_rabbitmq() {
    local name=countersign-$$-$RANDOM pid
    pick_port
    say "starting $rabbitmq_image in docker on 127.0.0.1:$port (container $name)"
    if ! docker run --detach --rm --name "$name" --publish "127.0.0.1:$port:5672" "$rabbitmq_image" >/dev/null; then
        note "docker could not start it"
        return 1
    fi
    at_exit "timeout 60 docker rm --force --volumes $name >/dev/null"
    # The container's own life: `docker wait` ends when it does.
    start /dev/null docker wait "$name"
    pid=$started
    at_exit "stop_process $pid 5"
    wait_until 120 "$pid" amqp_answers "$port" || die "RabbitMQ in container $name did not become ready: $(docker logs --tail 10 "$name" 2>&1)"
    AMQP_URL=amqp://guest:guest@127.0.0.1:$port/%2f
    export AMQP_URL
}

# A broker by the nearest way: the one that is named, the one that runs, docker, a private node; or by $BROKER: "docker"
# or "private". One that merely listens on 5672 is somebody's: it is used if it belongs to root, to RabbitMQ's own user or
# to us, for on a machine of many anybody may listen there, and would get the commands; and what is used is said.
find_or_start_broker() { # <directory for a private node>
    local found owner
    broker_is_ours=
    if [[ -n ${AMQP_URL:-} ]]; then
        say "using the broker of AMQP_URL"
        export AMQP_URL
        return
    fi
    case ${BROKER:-} in
        '')
            if found=$(amqp_product 5672); then
                owner=$(listener_owner 5672)
                note "on 127.0.0.1:5672 there is $found, which lets guest in${owner:+; its process belongs to $owner}"
                if [[ -z $owner || $owner == root || $owner == rabbitmq || $owner == "$(id -un)" ]]; then
                    say "using it: it gets exchanges and queues named countersign.*, and the commands"
                    note "another one: AMQP_URL=amqp://user:password@host:5672/vhost; one of our own: BROKER=private or BROKER=docker"
                    export AMQP_URL=amqp://guest:guest@127.0.0.1:5672/%2f
                    return
                fi
                note "not using it: anybody could listen there. AMQP_URL=amqp://guest:guest@127.0.0.1:5672/%2f does use it"
            fi
            ;;
        docker | private) ;;
        *) die "BROKER is \"$BROKER\"; it may be docker or private" ;;
    esac
    broker_is_ours=yes
    if [[ ${BROKER:-} != private ]]; then
        if command -v docker >/dev/null && timeout 10 docker info >/dev/null 2>&1 && start_docker_rabbitmq; then
            return
        fi
        [[ ${BROKER:-} != docker ]] || die "BROKER is docker, and docker cannot be used here"
        note "no AMQP_URL, no broker on 5672 to be used, no docker that could start one: RabbitMQ comes from apt"
    fi
    install_rabbitmq
    start_private_rabbitmq "$1"
}
