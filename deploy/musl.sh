# shellcheck shell=bash
# A compiler for static programs. Sourced after lib.sh.
#
# Rust's target for musl comes from `rustup target add`, which no script here calls: it fetches from one more server,
# and changes the toolchain of the user. Where the target is not installed, Debian 12 has all that it is made of: a newer Rust
# with the source of its library (rustc-web, rust-web-src), musl, and LLVM's unwinder. The library is then built here, once for each
# version of Rust.

musl_target=x86_64-unknown-linux-musl

# Makes cargo able to build for $musl_target: exports RUSTC if the compiler is not the usual one, and the C compiler for
# SQLite, ring and mimalloc. Says which Rust it is, for the bytes of the program depend on it.
need_musl() { # <directory for tools>
    need_rust
    apt_install musl-tools
    export CC_x86_64_unknown_linux_musl=musl-gcc
    if has_musl "$(command -v rustc)"; then
        note "$musl_target of $(rustc --version)"
        return
    fi
    make_musl_toolchain "$1"
    note "$musl_target of $("$RUSTC" --version), its library built from Debian's source"
}

has_musl() { compgen -G "$("$1" --print target-libdir --target "$musl_target")/libstd-*.rlib" >/dev/null; } # <rustc>

# Exports RUSTC, a compiler from Debian's packages that knows $musl_target. Nothing of it is installed on the machine.
make_musl_toolchain() { # <directory for tools>
    local version needed directory library llvm
    local help="install it with: rustup target add $musl_target"
    command -v apt-cache >/dev/null || die "$musl_target is not installed; $help"
    apt-cache policy rustc-web 2>/dev/null | grep -q 'Candidate: [0-9]' || as_root apt-get update -q >&2 || true
    version=$(apt-cache policy rustc-web | sed -n 's/^ *Candidate: \([0-9].*\)$/\1/p')
    needed=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "${BASH_SOURCE[0]%/*}/../Cargo.toml")
    [[ -n $version && $(printf '%s\n' "$needed" "$version" | sort -V | head -n 1) == "$needed" ]] ||
        die "$musl_target is not installed, and this Debian has no rustc-web of $needed or newer to make it from; $help"
    directory=$1/rust-$version
    if [[ ! -x $directory/rustc ]]; then
        say "making $musl_target from Debian's Rust $version"
        rm -rf "$directory"
        mkdir -p "$directory/packages"
        library=libstd-rust-web-$(cut -d. -f1,2 <<<"$version")
        llvm=$(apt-cache show "$library=$version" | grep -om1 'libllvm[0-9]*') || die "$library does not say which LLVM it needs"
        (cd "$directory/packages" && apt-get download -q -o APT::Sandbox::User=root "rustc-web=$version" "$library=$version" \
            "libstd-rust-web-dev=$version" "rust-web-src=$version" "$llvm" libunwind-14-dev) >&2 || die "apt-get could not download them"
        local package
        for package in "$directory"/packages/*.deb; do
            dpkg-deb -x "$package" "$directory"
        done
        rm -rf "$directory/packages"
        build_musl_library "$directory" "${version%%+*}"
    fi
    export RUSTC=$directory/rustc
    has_musl "$RUSTC" || die "$directory is not complete; remove it"
}

# The usual C compiler starts with glibc's files; these are musl's, in the place where rustc looks for them.
build_musl_library() { # <directory> <version of Rust>
    local directory=$1 source=$1/usr/lib/rustlib/src/rust libraries=$1/usr/lib/rustlib/$musl_target/lib
    local own=$libraries/self-contained file
    # Debian expects the compiler's own libraries in the system's directory.
    printf '#!/bin/sh\nexport LD_LIBRARY_PATH=%q\nexec %q "$@"\n' \
        "$directory/usr/lib/x86_64-linux-gnu" "$directory/usr/bin/rustc" >"$directory/rustc.partial"
    chmod 755 "$directory/rustc.partial"
    mkdir -p "$directory/empty/src" "$own"
    : >"$directory/empty/src/lib.rs"
    cat >"$directory/empty/Cargo.toml" <<-'END'
		[package]
		name = "empty"
		edition = "2024"
		[workspace]
	END
    # Only an unstable cargo builds the standard library; RUSTC_BOOTSTRAP makes this one so, for this library and nothing
    # else. It carries bitcode, as the library from rustup does, for the program is optimised across all crates.
    (cd "$directory/empty" && RUSTC_BOOTSTRAP=1 RUSTC=$directory/rustc.partial CARGO_TARGET_DIR=$directory/build \
        RUSTFLAGS="-C embed-bitcode=yes --remap-path-prefix=$(readlink -f "$source")=/rustc/$2 $(remap_registry)" \
        cargo build --release --quiet -Z build-std=std,panic_unwind --target "$musl_target") >&2 || die "the standard library does not build"
    cp "$directory/build/$musl_target"/release/deps/*.rlib "$libraries"
    rm "$libraries"/libempty-*.rlib
    cp /usr/lib/x86_64-linux-musl/{rcrt1,crt1,crti,crtn}.o /usr/lib/x86_64-linux-musl/libc.a "$own"
    for file in crtbegin.o crtbeginS.o crtend.o crtendS.o; do
        cp "$(cc -print-file-name=$file)" "$own"
    done
    # LLVM's unwinder is what rustup's target has as well; gcc's needs a function of glibc (_dl_find_object). Debian built it
    # with checked printing, which musl has not.
    cp "$directory/usr/lib/llvm-14/lib/libunwind.a" "$own"
    cat >"$directory/build/checked.c" <<-'END'
		#include <stdarg.h>
		#include <stdio.h>
		int __fprintf_chk(FILE *stream, int level, const char *format, ...)
		{
		    va_list values;
		    int written;
		    (void)level;
		    va_start(values, format);
		    written = vfprintf(stream, format, values);
		    va_end(values);
		    return written;
		}
	END
    musl-gcc -O2 -c "$directory/build/checked.c" -o "$directory/build/checked.o"
    # mimalloc counts bits by a function of the compiler that Rust's own library leaves to C; gcc's needs nothing else.
    (cd "$directory/build" && ar x "$(cc -print-libgcc-file-name)" _popcountdi2.o _popcountsi2.o _popcount_tab.o &&
        ar rD "$own/libunwind.a" checked.o _popcountdi2.o _popcountsi2.o _popcount_tab.o 2>/dev/null) || die "gcc's library looks different"
    rm -rf "$directory/build" "$directory/empty"
    # Last: when it is there, all of it is there.
    mv "$directory/rustc.partial" "$directory/rustc"
}

# Sources of dependencies are in a directory of the user; their bytes are the same everywhere.
remap_registry() { echo "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=/registry"; }
