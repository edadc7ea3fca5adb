#!/bin/sh
# Runs inside a virtual machine that was booted with "possible_cpus=256 maxcpus=1" and 2 CPUs: 256 possible, 2 plugged in, 1 running.
# The other CPU comes, goes and comes again while it is recorded. Beside the binary bpfrec and burn of tests/load. Prints
# "ok NAME" and "not ok NAME: WHY" lines, then "end of suite".
# shellcheck disable=SC2154 # what helpers.sh sets
# shellcheck source=tests/vm/helpers.sh
set -u
here=$(cd "$(dirname "$0")" && pwd)
dir=/dev/shm/bpfrec-hosts
mkdir -p $dir
cd $dir || exit 1
cp "$here/burn" first
cp "$here/burn" second
. "$here/helpers.sh"

field() { sed -n "s/^$1 //p" cpus.out; }

echo "# kernel $(uname -r)"
cpu=/sys/devices/system/cpu
# Later kernels take the number from the machine alone.
case "${VM_KERNEL:-}" in
    5.10 | 6.1) expect "256 CPUs are possible" "$(cat $cpu/possible)" [ "$(cat $cpu/possible)" = 0-255 ] ;;
    *) echo "SKIPPED: 256 possible CPUs: this kernel takes their number from the machine: $(cat $cpu/possible)" ;;
esac
expect "one CPU runs" "$(cat $cpu/online)" [ "$(cat $cpu/online)" = 0 ]

# shellcheck disable=SC2016 # for the inner shell, whose parent is the recorder
"$here/bpfrec" record -o cpus.bpr -e sched,profile -F 99 -- sh -c '
    cpu=$1/cpu1/online
    echo 1 >$cpu
    sleep 1
    taskset -c 1 ./first 3 >/dev/null & echo "first $!"; wait
    echo 0 >$cpu; echo 1 >$cpu
    sleep 2
    taskset -c 1 ./second 3 >/dev/null & echo "second $!"; wait
    echo 0 >$cpu
    sleep 2
    echo 1 >$cpu
    sleep 1
    sed -n "s/^VmHWM:[^0-9]*\([0-9]*\) kB/resident \1/p" /proc/$PPID/status
    cat /proc/$PPID/fdinfo/* | awk "
        /^map_type:/ { type = \$2 } /^map_id:/ { id = \$2; if (!(id in seen)) { seen[id] = 1; sum += lock; if (type == 27) rings++ } }
        /^memlock:/ { lock = \$2 }
        END { printf \"locked %d\nrings %d\n\", sum / 1024, rings }"
' sh $cpu >cpus.out 2>cpus.err
expect "it is recorded" "exit code $?: $(tail -n 3 cpus.err)" [ -s cpus.bpr ]
"$here/bpfrec" info cpus.bpr --json >info.json 2>>cpus.err
lost=$(tr -d ' \n' <info.json | tr ',{}' '\n\n\n' | sed -n 's/^"lost":\([0-9]*\)$/\1/p' | head -n 1)
expect "nothing is lost on a CPU that was off at the start" "${lost:-nothing told} lost: $(cat cpus.err)" [ "${lost:-1}" = 0 ]
"$here/bpfrec" replay cpus.bpr --json >events.json 2>>cpus.err
for which in first second; do
    pid=$(field $which)
    n=$(grep '"sched_switch"' events.json | grep '"cpu":1,' | grep -c "_tid\":$pid,")
    expect "switches of the $which program on CPU 1" "$n" [ "$n" -gt 0 ]
    "$here/bpfrec" report profile cpus.bpr -f -U --pid "$pid" >folded.txt 2>>cpus.err
    n=$(awk '/burn_seventy|burn_thirty/ { n += $NF } END { print n + 0 }' folded.txt)
    # 3 s of 99 samples each, less what a slow machine takes to see that the CPU is there. What it mapped on CPU 1 is known, or these would have no names.
    expect "samples of the $which program on CPU 1, with their functions" "$n: $(head -n 3 folded.txt)" between 50 "$n" 310
done
resident=$(field resident) locked=$(field locked) rings=$(field rings)
echo "# possible CPUs $(cat $cpu/possible), 2 plugged in: resident ${resident:-?} kB, maps beside the rings ${locked:-?} kB, $rings rings"
# Two CPUs, and those of stacks, tasks, modules and copies.
expect "a ring for each CPU that is plugged in, no more" "$rings" [ "${rings:-0}" = 6 ]
expect "resident memory" "$resident kB" between 1 "${resident:-0}" 65536
expect "memory of the other maps" "$locked kB" between 1 "${locked:-0}" 20480

# Where the kernel wants all rights for a perf event, a recorder that found every CPU running has given them up.
echo 3 >/proc/sys/kernel/perf_event_paranoid
# shellcheck disable=SC2016 # for the inner shell
if record lacks.bpr -e sched,profile -F 99 -- sh -c 'sleep 1; echo 0 >$1/cpu1/online; echo 1 >$1/cpu1/online; sleep 2' sh $cpu; then
    "$here/bpfrec" info lacks.bpr >lacks.txt 2>>cpus.err
    expect "what is not recorded on a CPU that came again is told" "$(grep lacks lacks.txt)" \
        grep -q '^cpu1_lacks  *mappings,profile from [0-9]* ns on$' lacks.txt
fi

if [ "$failed" != 0 ]; then sed 's/^/# /' cpus.err; fi
echo "end of suite"
exit "$failed"
