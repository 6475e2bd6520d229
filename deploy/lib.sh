# shellcheck shell=bash disable=SC2034  # results are read by the scripts that source this
# What quickstart and test share: words, root, packages, ports, cleaning up. Sourced, never run.
#
# Everything that a script starts or makes is handed to `at_exit` at once, so that it goes away in the
# reverse order whether the script ends well, fails, or is stopped by Ctrl-C.
#
# A function that has a result other than its exit code leaves it in one of these:
scratch=   # make_scratch
started=   # start
port=      # pick_port
# And install_cargo_tool puts its tools here, which is said by the script that calls it:
tools=

bold= red= plain=
if [[ -t 2 && -z ${NO_COLOR:-} ]]; then bold=$'\e[1m' red=$'\e[1;31m' plain=$'\e[0m'; fi
say()  { printf '%s==>%s %s\n' "$bold" "$plain" "$*" >&2; }
note() { printf '    %s\n' "$*" >&2; }
die()  { printf '%serror:%s %s\n' "$red" "$plain" "$*" >&2; exit 1; }

# --- cleaning up ------------------------------------------------------------------------------

at_exit_commands=()
at_exit() { at_exit_commands+=("$*"); }

# Called by the trap below. A second Ctrl-C must not cut the cleaning short; every command in it is bounded.
run_at_exit() {
    local status=$? index
    trap '' INT TERM HUP
    trap - EXIT
    for ((index = ${#at_exit_commands[@]} - 1; index >= 0; index--)); do
        eval "${at_exit_commands[index]}" || true
    done
    exit "$status"
}
trap run_at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# Makes the directory $scratch for everything that this run writes; only this user may read it.
make_scratch() {
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/countersign-$1.XXXXXX") || die "cannot make a temporary directory"
    at_exit "rm -rf -- '$scratch'"
}

# Stops a process that was started here as the leader of its own session (see `start`): first kindly,
# and the whole group by force when it has not ended after <seconds>.
stop_process() { # <pid> <seconds>
    local pid=$1 tenths=$(($2 * 10))
    kill -TERM "$pid" 2>/dev/null || return 0
    while kill -0 "$pid" 2>/dev/null; do
        if ((tenths-- <= 0)); then
            note "process $pid did not end within $2 s; killing it"
            kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null
            break
        fi
        sleep 0.1
    done
    wait "$pid" 2>/dev/null
    return 0
}

# Starts a program in the background and leaves its id in $started. Its own session keeps Ctrl-C away from
# it: the order of stopping is ours (service before broker), not the terminal's.
start() { # <output file> <program> <argument>...
    local output=$1
    shift
    setsid "$@" >"$output" 2>&1 </dev/null &
    started=$!
}

# --- waiting ----------------------------------------------------------------------------------

# Asks every tenth of a second until the command succeeds. Gives up after <seconds>, or at once when
# process <pid> has ended, for then nothing will change any more.
wait_until() { # <seconds> <pid> <command> <argument>...
    local deadline=$((SECONDS + $1)) pid=$2
    shift 2
    until "$@"; do
        kill -0 "$pid" 2>/dev/null || return 1
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

# --- root and packages ------------------------------------------------------------------------

as_root() {
    if ((EUID == 0)); then
        "$@"
    elif ! command -v sudo >/dev/null; then
        die "this needs root, and there is neither root nor sudo here: $*"
    elif [[ -t 2 ]]; then
        sudo "$@"
    else
        sudo -n "$@" || die "sudo could not run (it may want a password and there is no terminal): $*"
    fi
}

apt_updated=
# Installs those of the named Debian packages that are missing; does nothing when none is.
apt_install() { # <package>...
    local package missing=()
    for package; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || die "please install ${missing[*]} (no apt-get on this machine)"
    if [[ -z $apt_updated ]]; then
        say "apt-get update"
        as_root apt-get update -q >&2 || die "apt-get update failed"
        apt_updated=yes
    fi
    say "apt-get install ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        -o DPkg::Lock::Timeout=120 "${missing[@]}" >&2 || die "apt-get could not install ${missing[*]}"
}

# The Rust toolchain must be there, and as new as Cargo.toml wants it; the C compiler that the bundled SQLite wants is
# installed if it is not.
need_rust() {
    local needed found
    local manifest=${BASH_SOURCE[0]%/*}/../Cargo.toml
    needed=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$manifest")
    command -v cargo >/dev/null || [[ ! -x $HOME/.cargo/bin/cargo ]] || PATH=$HOME/.cargo/bin:$PATH
    if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
        die "cargo or rustc is not installed; Rust $needed or newer is needed: https://rustup.rs"
    fi
    # "rustc 1.89.0 (29483883e 2025-08-04)"; from inside the repository, where a toolchain may be pinned.
    found=$(cd "${manifest%/*}" && rustc --version 2>&1 | sed -n 's/^rustc \([0-9.]*\).*/\1/p') || true
    [[ -n $found ]] || die "$(command -v rustc) does not say which version it is; Rust $needed or newer is needed: https://rustup.rs"
    [[ $(printf '%s\n' "$needed" "$found" | sort -V | head -n 1) == "$needed" ]] ||
        die "Rust $found is installed ($(command -v rustc)), and Rust $needed or newer is needed: rustup update, or https://rustup.rs"
    command -v cc >/dev/null || apt_install gcc libc6-dev
}

# A tool of the wanted version from PATH or from an earlier run into $tools; else it is built, without optimization,
# because building takes longer than all that it will ever do here.
install_cargo_tool() { # <name> <version>
    local name=$1 version=$2
    ! "$name" --version 2>/dev/null | grep -qF "$version" || return 0
    # A subcommand of cargo does not say its version unless cargo calls it.
    ! grep -qsF "\"$name $version " "$tools/.crates.toml" || return 0
    say "cargo install $name $version"
    CARGO_TARGET_DIR=$tools/build cargo install "$name" --version "=$version" --locked --debug --quiet --root "$tools"
    rm -rf "$tools/build"
}

# --- ports ------------------------------------------------------------------------------------

port_is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Leaves in $port the given port if it is free, else a random free one that is below the range that the
# kernel gives to outgoing connections (32768 and up on Linux).
pick_port() { # [<wanted>]
    local attempt
    port=${1:-0}
    ((port == 0)) || ! port_is_taken "$port" || port=0
    for ((attempt = 0; port == 0 && attempt < 100; attempt++)); do
        port=$((20000 + RANDOM % 12000))
        ! port_is_taken "$port" || port=0
    done
    ((port != 0)) || die "found no free port"
}

# A random hexadecimal text of <bytes> bytes.
random_hex() { od -An -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }
