# shellcheck shell=bash disable=SC2034 # names are for those who read this
# What the cases share; read by each of them. Needs root, a C compiler and cgroup v2.
#
#   docs/cases/NAME.sh [DIR] [SECONDS]      makes the trouble, records SECONDS (default 5) of it into DIR/trace.bpr
#                                           (default NAME-out, replaced) and asks what NAME.md asks
#
# BPFREC: the command (default: this repository's build, else the one on the PATH).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
name=$(basename "$0" .sh)
seconds=${2:-5}
mkdir -p "${1:-$name-out}"
dir=$(cd "${1:-$name-out}" && pwd)
rm -rf "$dir/trace.bpr" "$dir/answers"
bpfrec=${BPFREC:-$here/../../target/release/bpfrec}
[ -x "$bpfrec" ] || bpfrec=bpfrec
groups=()

die() { echo "$name: $*" >&2; exit 1; }
# This machine cannot have this trouble: no failure, and no success.
cannot() { echo "$*" >&2; exit 77; }
[ "$(id -u)" = 0 ] || die "not root: recording needs it"
mount=$(awk '{ for (i = 7; i < NF; i++) if ($i == "-" && $(i + 1) == "cgroup2") { print $5; exit } }' /proc/self/mountinfo)
[ -n "$mount" ] || die "no cgroup v2 is mounted here"

# What a case sets up it also takes away, by a function `undo` of its own.
undo() { :; }
cleanup() {
    local jobs_left group
    jobs_left=$(jobs -p)
    # shellcheck disable=SC2086 # a list
    if [ -n "$jobs_left" ]; then kill $jobs_left 2>/dev/null || true; fi
    wait 2>/dev/null || true
    undo
    for group in ${groups[@]+"${groups[@]}"}; do
        # The last process of a group may still be on its way out.
        rmdir "$group" 2>/dev/null || { sleep 1 && rmdir "$group"; } || true
    done
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

build() { cc -O1 -fno-omit-frame-pointer -o "$dir/$1" "$here/$1.c" -pthread; }
group() { # a cgroup
    mkdir -p "$1"
    groups=("$1" ${groups[@]+"${groups[@]}"})
}
join() { # the calling subshell enters cgroups
    local group
    for group; do echo "$BASHPID" >"$group/cgroup.procs"; done
}
# Shows a command as one would type it in DIR, and its answer.
show() {
    printf '\n$ bpfrec %s\n' "$*"
    (cd "$dir" && "$bpfrec" "$@")
}
