# shellcheck shell=bash disable=SC2034  # $root and $upper are for the suites that source this
# Machines without a machine: a systemd of its own as process 1 of namespaces of its own, on a copy of a root file system that is
# forgotten afterwards; nothing outside of it is touched. And the words of the suites that look into it. Sourced after lib.sh.

passed=0
failed=0
init=      # boot_machine: process 1, as it is seen from here
root=      # make_root
upper=     # make_root: what is different from the root that it began as

skip() { note "not tried: $*"; echo "0 passed, 0 failed"; exit 0; }
ok() { passed=$((passed + 1)); note "ok      $*"; }
wrong() { failed=$((failed + 1)); note "FAILED  $*"; }
check() { local what=$1; shift; if "$@"; then ok "$what"; else wrong "$what"; fi; }
# What the rest needs. Shows what systemd and the service said.
must() {
    local what=$1
    shift
    if "$@"; then ok "$what"; return; fi
    wrong "$what"
    [[ ! -f $scratch/console ]] || tail -n 60 "$scratch/console" >&2
    if [[ -n $init ]]; then
        inside systemctl status --no-pager countersign >&2 || true
        inside journalctl --no-pager --unit=countersign --lines=60 >&2 || true
    fi
    echo "$passed passed, $failed failed"
    exit 1
}

need_machine() {
    [[ $(id -u) == 0 ]] || skip "needs root"
    [[ -x /lib/systemd/systemd ]] || skip "systemd is not installed"
    [[ -d /sys/fs/cgroup/unified || -f /sys/fs/cgroup/cgroup.controllers ]] || skip "no cgroups of version 2"
}

# Leaves in $root a root file system that begins as <lower>, of which nothing is changed.
make_root() { # <lower>
    local disk=$scratch/disk
    mkdir "$disk"
    mount -t tmpfs tmpfs "$disk" || skip "may not mount"
    at_exit "umount -l '$disk'"
    mkdir "$disk/upper" "$disk/work" "$disk/root"
    root=$disk/root
    upper=$disk/upper
    mount -t overlay overlay -o "lowerdir=$1,upperdir=$disk/upper,workdir=$disk/work" "$root" || skip "no overlayfs"
    at_exit "umount -l '$root'"
}

# Boots $root; without a network ("alone") or with that of this machine ("among others").
boot_machine() { # <alone | among others>
    local name=${scratch##*/} network=
    [[ $1 != alone ]] || network=--net
    printf '[Unit]\nDescription=nothing at all\nDefaultDependencies=no\n' >"$root/etc/systemd/system/nothing.target"
    # A cgroup of its own, so that systemd finds itself at the top.
    local top
    for top in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
        if [[ -f $top/cgroup.procs ]]; then
            mkdir -p "$top/$name"
            at_exit "find '$top/$name' -depth -type d -exec rmdir {} + 2>/dev/null"
        fi
    done
    name=$name root=$root inner=$machine_inner network=$network sh -c "$machine_boot" >"$scratch/console" 2>&1 &
    outer=$!
    disown
    at_exit end_init
    must "systemd starts" soon find_init
    must "systemd runs" soon is_running
    note "$(inside systemctl --version | head -n 1)"
}

# shellcheck disable=SC2016  # the inner shells expand these
machine_boot='
set -e
for h in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
  if [ -d "$h/$name" ]; then echo $$ > "$h/$name/cgroup.procs"; fi
done
exec unshare --mount --pid --uts --ipc $network --cgroup --fork -- sh -c "$inner"'
# Systemd 256 and 257 want to be asked for before they use cgroups as some hosts still have them.
# shellcheck disable=SC2016
machine_inner='
set -e
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
if [ -d /sys/fs/cgroup/unified ]; then
  mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
  mkdir -p "$root/sys/fs/cgroup/systemd" "$root/sys/fs/cgroup/unified"
  mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup/unified"
else
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
fi
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount --rbind /dev "$root/dev"
[ -z "$network" ] || ip link set lo up
# Not chroot: a process that is in one may not make the user namespace of PrivateUsers.
mkdir -p "$root/run/before"
cd "$root"
pivot_root . run/before
umount -l /run/before
# As where systemd is the first to run: a mount that it makes for a unit is seen everywhere.
mount --make-rshared /
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1 \
  /lib/systemd/systemd --system --unit=nothing.target --log-target=journal --show-status=0'

# The end of process 1 is the end of all that it has started.
end_init() {
    [[ -z $init ]] || kill -KILL "$init" || true
    kill -KILL "$outer" 2>/dev/null || true
}

# shellcheck disable=SC2016
inside() { nsenter -t "$init" -m -p -u -n -i -- sh -c 'cd /root && exec "$@"' - "$@"; }
# Whether something comes true within half a minute.
soon() {
    local tenths
    for ((tenths = 0; tenths < 300; tenths++)); do
        if "$@" 2>"$scratch/last"; then return; fi
        sleep 0.1
    done
    cat "$scratch/last" >&2
    return 1
}
find_init() { init=$(pgrep -P "$outer" | head -n 1) && [[ -n $init ]]; }
is_running() { [[ $(inside systemctl is-system-running) == running ]]; }
