#!/usr/bin/env bash
# A ledger is slow because its volume is held back, not because the disk is slow. See slow-disk.md, and case.sh for the
# arguments. DIR must be on a disk, not in memory. Needs losetup and mkfs.ext4.
# shellcheck source=docs/cases/case.sh
. "$(dirname "$0")/case.sh"

undo() {
    umount "$dir/volume" 2>/dev/null || true
    if [ -n "${loop:-}" ]; then losetup -d "$loop"; fi
    rm -rf "$dir/volume" "$dir/volume.img"
}
# Fifty writes a second to the disk below, for the group of the ledger: io.max, or what cgroup v1 has for it.
hold_back() {
    local disk
    read -r disk < <(findmnt -no MAJ:MIN -T "$dir")
    [ -e "/sys/dev/block/$disk" ] || cannot "$dir is not on a disk: $(findmnt -no FSTYPE -T "$dir")"
    # A limit is one of the whole disk.
    if [ -e "/sys/dev/block/$disk/partition" ]; then disk=$(cat "/sys/dev/block/$disk/../dev"); fi
    if grep -qw io "$mount/cgroup.controllers"; then
        echo +io >"$mount/cgroup.subtree_control"
        echo "$disk wiops=50" >"$mount/ledger/io.max"
    else
        v1=$(awk '{ for (i = 7; i < NF; i++) if ($i == "-" && $(i + 1) == "cgroup" && $NF ~ /blkio/) { print $5; exit } }' /proc/self/mountinfo)
        [ -n "$v1" ] || cannot "no cgroup here can hold I/O back"
        group "$v1/ledger"
        echo "$disk 50" >"$v1/ledger/blkio.throttle.write_iops_device"
    fi
}

command -v mkfs.ext4 >/dev/null || cannot "no mkfs.ext4 here"
build ledger
mkdir -p "$dir/volume"
truncate -s 64M "$dir/volume.img"
loop=$(losetup --find --show --direct-io=on "$dir/volume.img") || cannot "no loop device here"
mkfs.ext4 -q "$loop"
mount "$loop" "$dir/volume"
group "$mount/ledger"
hold_back
(
    join "${groups[@]}"
    exec "$dir/ledger" "$dir/volume/entries" 600
) &
ledger=$!
sleep 0.5
show record -q -e sched,block,offcpu -d "${seconds}s" -o trace.bpr
kill $ledger
wait $ledger || true

show report biolatency trace.bpr -D -m
show report biolatency trace.bpr -m --per-process --cgroup /ledger
show report offcputime trace.bpr -P --cgroup /ledger
show analyze trace.bpr -o answers >/dev/null
