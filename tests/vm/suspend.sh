#!/bin/sh
# Runs inside a bare guest (scripts/vm bare): the machine is suspended to memory for some seconds, twice, while it is recorded,
# and its own clock wakes it. Beside the binary bpfrec, and blip, moment and sleeper of tests/load. Prints "ok NAME" and
# "not ok NAME: WHY" lines, then "end of suite".
# shellcheck disable=SC2154 # what helpers.sh sets
# shellcheck source=tests/vm/helpers.sh
set -u
here=/suite dir=/tmp
cd $dir || exit 1
. $here/helpers.sh
. $here/marks.sh

# The n-th figure of a line of `moment`: 2 monotonic, 3 boot, 4 the day's.
moment() { awk -v word="$1" -v n="$2" '$1 == word { printf "%.0f", $n }' moments; }
slept() { awk -v a="$1" -v b="$2" '$1 == a { x = $3 - $2 } $1 == b { y = $3 - $2 } END { printf "%.0f", y - x }' moments; }

cat >suspend.inc <<'EOS'
suspend() { # SECONDS
    $here/moment "before_$1"
    echo 0 >/sys/class/rtc/rtc0/wakealarm
    echo "+$1" >/sys/class/rtc/rtc0/wakealarm
    echo mem >/sys/power/state
    $here/moment "after_$1"
}
EOS
cat >sleeping.inc <<'EOS'
. ./marks.inc
. ./suspend.inc
mark a
$here/sleeper 200 & s=$!
echo "sleeper $s"
suspend 4
wait $s
mark b
suspend 7
mark c
for cpu in 0 1; do
    cp blip "on_$cpu"
    taskset $((1 << cpu)) "./on_$cpu"
done
sleep 2
EOS

echo "# kernel $(uname -r)"
: >errors
echo deep >/sys/power/mem_sleep 2>/dev/null
# Debian's kernels let nobody open a perf event for a CPU that comes back but who may do everything.
echo 2 >/proc/sys/kernel/perf_event_paranoid
(while :; do usleep 100000; done) &
cp $here/blip blip
if record sleep.bpr -e sched,offcpu,profile -F 99 -- sh -c '. ./sleeping.inc'; then
    grep -E '^(before|after)_' sleep.bpr.out >moments
    short=$(slept before_4 after_4) long=$(slept before_7 after_7)
    expect "suspend: the machine slept, twice" "$short and $long ns" [ "${short:-0}" -gt 1000000000 -a "${long:-0}" -gt 1000000000 ]
    expect "suspend: the file is whole" "verify failed: $(tail -n 3 errors)" quiet_verify sleep.bpr
    $here/bpfrec info --json sleep.bpr >info.json 2>>errors
    lost=$(total lost <info.json)
    expect "suspend: nothing is lost" "$lost" [ "$lost" = 0 ]
    told=$(tr ',' '\n' <info.json | sed -n 's/.*"suspended_ns": *\([0-9]*\).*/\1/p')
    off=$(awk "BEGIN { d = $told - $short - $long; print (d < 0 ? -d : d) < 2e7 }")
    expect "suspend: info tells how long it slept" "${told:-nothing} where $short and $long are right" [ "$off" = 1 ]
    wrong_marks sleep >marks.txt
    expect "suspend: times of the day follow" "$(tr '\n' ';' <marks.txt)" grep -q '^3 right$' marks.txt
    # 200 waits of 20 ms by CLOCK_MONOTONIC, which stands still meanwhile; under emulation they are longer.
    pid=$(sed -n 's/^sleeper //p' sleep.bpr.out)
    $here/bpfrec report offcputime --pid "$pid" --json sleep.bpr 2>>errors | tr -d ' \n' >waits.json
    # shellcheck disable=SC2046 # two numbers
    set -- $(sed -n 's/.*"sleeping":{"ns":\([0-9]*\),"queued_ns":[0-9]*,"waits":\([0-9]*\)}.*/\1 \2/p' waits.json)
    expect "suspend: waits are those that a program made" "${2:-no} waits" [ "${2:-0}" = 200 ]
    expect "suspend: no sleep of the machine counts as a wait" "${1:-no} ns" between 4000000000 "${1:-0}" 6000000000
    for cpu in 0 1; do
        n=$(awk -F, -v cpu=$cpu -v mark="on_$cpu" '$1 == "running" && $5 == cpu && $8 == mark' sleep.csv | wc -l)
        expect "suspend: CPU $cpu is recorded after it" "$n rows" [ "$n" -gt 0 ]
    done
    after=$(moment after_7 2)
    for cpu in 0 1; do
        n=$(awk -F, -v cpu=$cpu -v after="$after" '$1 == "sample" && $5 == cpu && $3 > after' sleep.csv | wc -l)
        expect "suspend: CPU $cpu is sampled after it" "$n samples" [ "$n" -gt 0 ]
    done
fi
echo 3 >/proc/sys/kernel/perf_event_paranoid
if record lacks.bpr -e sched,profile -F 99 -- sh -c 'sleep 1; . ./suspend.inc; suspend 4; sleep 2'; then
    $here/bpfrec info lacks.bpr >lacks.txt 2>>errors
    expect "suspend: what is not recorded after it is told" "$(grep lacks lacks.txt)" \
        grep -q '^cpu1_lacks  *mappings,profile from [0-9]* ns on$' lacks.txt
fi
cat sleep.bpr >/dev/ttyS1
[ $failed = 0 ] || tail -n 5 errors sleep.bpr.out
echo "end of suite"
