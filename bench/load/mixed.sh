#!/usr/bin/env bash
# A mixed load for SECONDS (default 7): direct I/O, context switches, CPU in two named functions, short processes.
#
#   bench/load/mixed.sh [SECONDS] [DIR]      DIR: on a real block device (default: the current folder)
#
# MIXED_GROUPS=NAME (root, cgroup v2): the I/O and the short processes run in the group NAME-io, the rest in NAME-cpu;
# both are removed at the end.
# Needs a C compiler.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
seconds=${1:-7}
dir=$(mktemp -d "${2:-.}/mixed.XXXXXX")
groups=()

cleanup() {
    local jobs_left
    jobs_left=$(jobs -p)
    # shellcheck disable=SC2086 # a list
    if [ -n "$jobs_left" ]; then kill $jobs_left 2>/dev/null || true; fi
    wait 2>/dev/null || true
    rm -rf "$dir"
    local group
    for group in ${groups[@]+"${groups[@]}"}; do
        # The last process of a group may still be on its way out.
        rmdir "$group" 2>/dev/null || { sleep 1 && rmdir "$group"; } || true
    done
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

cc -O1 -fno-omit-frame-pointer -o "$dir/burn" "$here/../../tests/load/burn.c"
cc -O2 -fno-omit-frame-pointer -o "$dir/pingpong" "$here/pingpong.c"
cc -O1 -fno-omit-frame-pointer -o "$dir/blip" "$here/../../tests/load/blip.c"

mount=$(awk '{ for (i = 7; i < NF; i++) if ($i == "-" && $(i + 1) == "cgroup2") { print $5; exit } }' /proc/self/mountinfo)
if [ -n "${MIXED_GROUPS:-}" ] && [ -n "$mount" ]; then
    groups=("$mount/$MIXED_GROUPS-io" "$mount/$MIXED_GROUPS-cpu")
    mkdir "${groups[@]}"
fi
join() { # the calling subshell enters group 0 or 1
    if [ ${#groups[@]} -gt 0 ]; then echo "$BASHPID" >"${groups[$1]}/cgroup.procs"; fi
}

end=$((SECONDS + seconds))
(
    join 0
    while [ $SECONDS -lt $end ]; do
        dd if=/dev/zero of="$dir/f" bs=64k count=64 oflag=direct conv=notrunc status=none
    done
) &
(
    join 0
    while [ $SECONDS -lt $end ]; do
        "$dir/blip"
        sleep 0.01
    done
) &
(
    join 1
    exec "$dir/pingpong" "$seconds" >/dev/null
) &
(
    join 1
    exec "$dir/burn" "$seconds" >/dev/null
) &
wait
