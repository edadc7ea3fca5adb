#!/usr/bin/env bash
# What scripts/package makes: the files that are told, the same bytes again, a command that runs from the unpacked tree.
#
#   tests/packages.sh build DIR     makes all four packages in DIR; the other checks look at them
#   tests/packages.sh files | runs | again | depends | lintian | recipes DIR
#   tests/packages.sh unit          the service, by systemd's own checks
#   tests/packages.sh crates        what a registry of crates would get: it compiles alone, without testdata
#   tests/packages.sh install       cargo install --path .
#
# One check is one run, quiet and 0 when it holds. 77: it cannot run here, and its last line says why.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
dir=${2:-}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

die() { echo "$*" >&2; exit 1; }
cannot() { echo "$*"; exit 77; }
version() { "$target/release/bpfrec" --version | sed 's/^bpfrec //'; }
deb_of() { echo "$dir/${1}_$(version)_$(dpkg --print-architecture).deb"; }
rpm_of() { echo "$dir/$1-$(version)-1.$(uname -m).rpm"; }
binary_of() { if [ "$1" = bpfrec ]; then echo "$target/release/bpfrec"; else echo "$target/recorder/release/bpfrec"; fi; }

build() {
    scripts/package -o "$dir"
    scripts/package --recorder -o "$dir"
}

# The command, its manual pages and completions, the unit, the licence; nothing else.
expected() { # package, folder of zsh, licences...
    local package=$1 zsh=$2 licence
    shift 2
    echo /usr/bin/bpfrec
    echo /usr/lib/systemd/system/bpfrec.service
    echo /usr/share/bash-completion/completions/bpfrec
    echo /usr/share/fish/vendor_completions.d/bpfrec.fish
    echo "/usr/share/zsh/$zsh/_bpfrec"
    "$(binary_of "$package")" man -o "$scratch/man-$package"
    find "$scratch/man-$package" -type f -printf '/usr/share/man/man1/%f.gz\n'
    for licence; do echo "$licence"; done
}

files() {
    local package licences
    for package in bpfrec bpfrec-recorder; do
        dpkg-deb --fsys-tarfile "$(deb_of $package)" | tar -t | grep -v '/$' | sed 's/^\.//' | sort >"$scratch/got"
        expected $package vendor-completions "/usr/share/doc/$package/copyright" | sort | diff "$scratch/got" - || die "$package: .deb"
        licences=/usr/share/licenses/$package
        command rpm -qlp "$(rpm_of $package)" | sort >"$scratch/got"
        expected $package site-functions $licences $licences/LICENSE-{APACHE,MIT,GPL-2.0,BSD-2-Clause} |
            sort | diff "$scratch/got" - || die "$package: .rpm"
    done
    # One takes the other's place, as both have the same files.
    dpkg-deb -f "$(deb_of bpfrec-recorder)" Conflicts | grep -qx bpfrec
    command rpm -qp --conflicts "$(rpm_of bpfrec)" | grep -qx bpfrec-recorder
}

# Unpacked elsewhere, each command runs; the unit's command is there; the shells' files are what the binary prints.
runs() {
    local package root
    for package in bpfrec bpfrec-recorder; do
        root=$scratch/$package
        dpkg-deb -x "$(deb_of $package)" "$root"
        "$root/usr/bin/bpfrec" verify testdata/v1/mixed-6.18.bpr >/dev/null
        "$root/usr/bin/bpfrec" completions bash | cmp - "$root/usr/share/bash-completion/completions/bpfrec"
        gzip -dc "$root/usr/share/man/man1/bpfrec-record.1.gz" | grep -q 'rotate\\-size'
        [ -x "$root$(sed -n 's/^ExecStart=\([^ ]*\) .*/\1/p' "$root/usr/lib/systemd/system/bpfrec.service")" ]
    done
    "$scratch/bpfrec/usr/bin/bpfrec" report runqlat testdata/v1/mixed-6.18.bpr | grep -q usecs
    if "$scratch/bpfrec-recorder/usr/bin/bpfrec" report runqlat testdata/v1/mixed-6.18.bpr 2>/dev/null; then
        die "the recorder alone has reports"
    fi
    # By dpkg itself, into a root of its own; it brings no libraries along.
    mkdir -p "$scratch/root/var/lib/dpkg/"{updates,info}
    touch "$scratch/root/var/lib/dpkg/"{status,available}
    for package in bpfrec bpfrec-recorder; do
        dpkg --root="$scratch/root" --force-not-root --force-depends --log=/dev/null -i "$(deb_of $package)" >"$scratch/log" 2>&1 ||
            { cat "$scratch/log" && die "dpkg did not install $package"; }
        [ "$(dpkg --root="$scratch/root" -S /usr/bin/bpfrec)" = "$package: /usr/bin/bpfrec" ]
        dpkg --root="$scratch/root" --verify "$package"
        # Without a running systemd the script before a removal does nothing, so it need not run in an empty root.
        rm -f "$scratch/root/var/lib/dpkg/info/$package.prerm"
        dpkg --root="$scratch/root" --force-not-root --log=/dev/null -r $package >/dev/null
        [ ! -e "$scratch/root/usr/bin/bpfrec" ]
    done
}

# A second later, from the same binary.
again() {
    local package flags
    sleep 1
    for package in bpfrec bpfrec-recorder; do
        flags=(--binary "$(binary_of $package)" -o "$scratch")
        if [ $package = bpfrec-recorder ]; then flags+=(--recorder); fi
        scripts/package "${flags[@]}" >/dev/null
        cmp "$(deb_of $package)" "$scratch/$(basename "$(deb_of $package)")"
        cmp "$(rpm_of $package)" "$scratch/$(basename "$(rpm_of $package)")"
    done
}

depends() {
    local package list
    for package in bpfrec bpfrec-recorder; do
        list=$(dpkg-deb -f "$(deb_of $package)" Depends)
        for library in libc6 libelf1 zlib1g; do
            grep -qE "(^|, )$library(t64)? \(>= " <<<"$list" || die "$package does not depend on $library: $list"
        done
        list=$(command rpm -qp --requires "$(rpm_of $package)")
        for library in libc.so.6 libelf.so.1 libz.so.1; do grep -q "^$library" <<<"$list" || die "$package: $list"; done
    done
}

# Two complaints are meant: there is nothing but what is told, so no changelog; whoever publishes sets MAINTAINER.
lintian() {
    command -v lintian >/dev/null || cannot "no lintian here"
    local package complaints
    for package in bpfrec bpfrec-recorder; do
        complaints=$(command lintian --allow-root --suppress-tags no-changelog,bogus-mail-host "$(deb_of $package)" || true)
        if grep -E '^[EW]:' <<<"$complaints"; then exit 1; fi
    done
}

# Of the image and the pod; neither can be run here.
recipes() {
    "${BPFREC_PYTHON:-$target/venv/bin/python}" tests/recipes.py "$(dpkg-deb -f "$(deb_of bpfrec)" Depends)"
}

unit() {
    command -v systemd-analyze >/dev/null || cannot "no systemd-analyze here"
    # It looks for the command and the page, which need not be installed here.
    sed "s#/usr/bin/bpfrec#/bin/true#" packaging/bpfrec.service >"$scratch/bpfrec.service"
    local complaints exposure
    complaints=$(systemd-analyze verify --man=no "$scratch/bpfrec.service" 2>&1) || die "$complaints"
    [ -z "$complaints" ] || die "$complaints"
    systemd-analyze security --offline=true --threshold=30 "$scratch/bpfrec.service" >"$scratch/security" ||
        { cat "$scratch/security" && exit 1; }
    exposure=$(sed -n 's/.*Overall exposure level.*: \([0-9.]*\).*/\1/p' "$scratch/security")
    [ -n "$exposure" ] || die "systemd-analyze security said nothing"
}

# Unpacked side by side, for the registry has none of them yet.
crates() {
    local crate names=(bpfrec-format bpfrec-analyze bpfrec)
    cargo package -p bpfrec-format -p bpfrec-analyze -p bpfrec --no-verify --allow-dirty --offline --quiet
    for crate in "${names[@]}"; do
        tar -xzf "$target/package/$crate-$(version).crate" -C "$scratch"
        if find "$scratch/$crate-$(version)" -name '*.bpr*' -o -name 'root_*' | grep .; then die "$crate has tests in it"; fi
    done
    cd "$scratch/bpfrec-$(version)"
    # The build reads C files; a link would lead out of the crate.
    [ -f bpf/events.h ] && [ ! -L bpf/events.h ]
    printf '\n[patch.crates-io]\n' >>Cargo.toml
    for crate in "${names[@]:0:2}"; do echo "$crate = { path = \"../$crate-$(version)\" }" >>Cargo.toml; done
    cargo check --release --offline --target-dir "$target"
}

install() {
    cargo install --path . --root "$scratch" --locked --offline --no-track
    "$scratch/bin/bpfrec" verify testdata/v1/mixed-6.18.bpr
}

case ${1:-} in
    build | files | runs | again | depends | lintian | recipes) [ -n "$dir" ] || die "which folder?" ;;
    unit | crates | install) ;;
    *) sed -n '2,/^set -e/p' "$0" | sed '$d; s/^# \{0,1\}//' && exit 2 ;;
esac
"$1"
