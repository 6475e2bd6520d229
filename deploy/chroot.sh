# shellcheck shell=bash disable=SC2154  # make_scratch sets $scratch
# Roots of other Debian releases, for what has to be tried there. Sourced after lib.sh.

# Makes the root of a Debian release in target/chroots, from where this machine gets its own packages. One that is there is used.
make_chroot() { # <release>
    local chroot=target/chroots/$1 site
    [[ ! -d $chroot ]] || return 0
    apt_install debootstrap
    # shellcheck disable=SC2016  # apt-get fills these in
    site=$(apt-get indextargets --format '$(ORIGIN) $(SITE)' 'Created-By: Packages' | awk '$1 == "Debian" && $2 !~ /security/ { print $2; exit }')
    say "debootstrap $1"
    rm -rf "$chroot.partial"
    mkdir -p target/chroots
    debootstrap --variant=minbase --include=systemd,ca-certificates "$1" "$chroot.partial" ${site:+"$site"} >"$scratch/debootstrap" ||
        { tail -n 5 "$scratch/debootstrap" >&2; die "debootstrap could not make $1"; }
    mv "$chroot.partial" "$chroot"
}
