#!/usr/bin/env bash
# A shop is slow because a batch job has come to live on its CPU. See noisy-neighbour.md, and case.sh for the arguments.
# shellcheck source=docs/cases/case.sh
. "$(dirname "$0")/case.sh"

build shop
build crunch
group "$mount/shop"
group "$mount/batch"
( # a quiet host first: what the shop is like alone
    join "$mount/shop"
    exec taskset -c 0 "$dir/shop" 1
) | sed 's/^/before:  /'
(
    join "$mount/batch"
    exec taskset -c 0 "$dir/crunch" 3 600
) &
(
    join "$mount/shop"
    exec taskset -c 0 "$dir/shop" 600
) >"$dir/shop.txt" &
shop=$!
sleep 0.5
show record -q -d "${seconds}s" -o trace.bpr
kill $shop
wait $shop
sed 's/^/then:    /' "$dir/shop.txt"

show report runqlat trace.bpr --per-cgroup
show analyze trace.bpr -o answers >/dev/null
