#!/bin/sh
# Runs inside a virtual machine, beside the binary bpfrec and the workloads of tests/load: each source records a known
# event truly on this kernel. Prints "ok NAME" and "not ok NAME: WHY" lines, then "end of suite".
# Under emulation CPU work is some 20 times slower: nothing here looks at a time. Only sh, awk, grep, sed and dd.
# shellcheck disable=SC2020,SC2317 # sets of characters; functions that are called by name
set -u
here=$(cd "$(dirname "$0")" && pwd)
dir=/dev/shm/bpfrec-suite
mkdir -p $dir
cd $dir || exit 1
# In memory and run once: a first run waits for its own pages.
cp "$here/sleeper" "$here/blip" "$here/burn" "$here/deep" "$here/jit" .
./sleeper 1
./deep 0
./jit map 1 0 >/dev/null
failed=0

ok() { echo "ok $1"; }
not_ok() {
    echo "not ok $1: $2"
    failed=1
}
# NAME WHY CONDITION...: the condition is a command
expect() {
    name=$1 why=$2
    shift 2
    if "$@"; then ok "$name"; else not_ok "$name" "$why"; fi
}
quiet_verify() { "$here/bpfrec" verify "$1" >>"$dir/errors" 2>&1; }
between() { [ "${2:-0}" -ge "$1" ] && [ "${2:-0}" -le "$3" ]; } # LOW GOT HIGH
# Sum of a field over the groups of a report's JSON: the buckets' own counts are left out.
total() { # FIELD
    tr -d ' \n' | sed 's/"buckets":\[[^]]*\]//g' | tr ',{}' '\n\n\n' | awk -F: -v f="\"$1\"" '$1 == f { n += $2 } END { printf "%d", n }'
}
# Lower bound in the report's unit and count of each bucket that is not empty.
buckets() {
    tr -d ' \n' | tr '{}' '\n\n' | sed -n 's/.*"low":\([0-9]*\),"high":[0-9]*,"count":\([0-9]*\).*/\1 \2/p' | awk '$2 > 0'
}
record() { # FILE OPTIONS -- COMMAND
    file=$1
    shift
    "$here/bpfrec" record -q -o "$file" "$@" >"$file.out" 2>&1
    status=$?
    if [ $status != 0 ]; then
        not_ok "record $*" "exit code $status: $(tail -n 3 "$file.out" | tr '\n' ' ')"
        return 1
    fi
}
report() { "$here/bpfrec" report "$@" 2>>$dir/errors; }

echo "# kernel $(uname -r)"

# ---- block: null_blk completes each request after 200 us
if modprobe null_blk nr_devices=1 queue_mode=2 irqmode=2 completion_nsec=200000 gb=1 bs=4096 submit_queues=1; then
    if record block.bpr -e block -- dd if=/dev/zero of=/dev/nullb0 bs=64k count=200 oflag=direct; then
        report biolatency block.bpr --json >block.json
        n=$(total count <block.json)
        # udev or the page cache may read a few blocks of a new disk.
        expect "block: 200 requests" "$n requests" between 200 "${n:-0}" 210
        # One peak: from 128 us on, and most in neighbouring buckets.
        early=$(buckets <block.json | awk '$1 < 128 { n += $2 } END { print n + 0 }')
        expect "block: none faster than the disk" "$early below 128 us: $(cat block.json)" between 0 "$early" 2
        peak=$(buckets <block.json | awk '{ c[NR] = $2; if ($2 > c[p]) p = NR } END { print c[p - 1] + c[p] + c[p + 1] }')
        expect "block: one peak" "$peak of $n around it: $(cat block.json)" between 150 "${peak:-0}" 210
        report biolatency block.bpr -D >block.txt
        expect "block: the disk is named" "$(head -n 5 block.txt)" grep -q nullb0 block.txt
    fi
    # shellcheck disable=SC2016 # for the inner shell
    if record rand.bpr -e block -- sh -c 'dd if=/dev/nullb0 of=/dev/null bs=4k count=100 iflag=direct'; then
        n=$(report biolatency rand.bpr --json | total count)
        expect "block: 100 reads" "$n requests" between 100 "${n:-0}" 110
    fi
else
    not_ok "block" "null_blk does not load"
fi

# ---- sched: a hundred sleeps are a hundred waits
# shellcheck disable=SC2016
if record sched.bpr -e sched -- sh -c 'echo pid $$; exec "$0" 100' $dir/sleeper; then
    pid=$(sed -n 's/^pid //p' sched.bpr.out)
    n=$(report runqlat sched.bpr --json --pid "$pid" | total count)
    # Sleeping is 1, with a flag for freezable from 6.1 on; the shell before it may sleep a few times.
    sleeps=$("$here/bpfrec" replay sched.bpr --json | grep '"sched_switch"' | grep "\"prev_tid\":$pid," | grep -cE '"prev_state":(1|8193),')
    expect "sched: 100 switches out of the sleeper" "$sleeps" between 100 "$sleeps" 130
    expect "sched: 100 waits of the sleeper" "$n waits" between 100 "${n:-0}" 180
    report runqlat sched.bpr -P >sched.txt
    expect "sched: it is named" "$(grep -c . sched.txt) lines without sleeper" grep -q sleeper sched.txt
    expect "sched: the file is whole" "verify failed" quiet_verify sched.bpr
fi

# ---- profile: 70 : 30
# shellcheck disable=SC2016
if record profile.bpr -e profile -F 99 -- sh -c 'echo pid $$; exec "$0" 20' $dir/burn; then
    pid=$(sed -n 's/^pid //p' profile.bpr.out)
    report profile profile.bpr -f --pid "$pid" >folded.txt
    seventy=$(awk '/burn_seventy/ { n += $NF } END { print n + 0 }' folded.txt)
    thirty=$(awk '/burn_thirty/ { n += $NF } END { print n + 0 }' folded.txt)
    n=$((seventy + thirty))
    expect "profile: the functions are found" "$seventy and $thirty: $(head -n 3 folded.txt)" between 500 $n 2200
    share=$((n > 0 ? 100 * seventy / n : 0))
    expect "profile: 70 % in burn_seventy" "$share %" between 62 $share 78
fi

# ---- profile: fifteen frames without frame pointers, from user space and from within a system call
for mode in qsort kernel; do
    # shellcheck disable=SC2016
    if record "deep-$mode.bpr" -e profile -F 99 --unwind dwarf -- sh -c 'echo pid $$; exec "$0" 12 '$mode ./deep; then
        pid=$(sed -n 's/^pid //p' "deep-$mode.bpr.out")
        report profile "deep-$mode.bpr" -f -U --pid "$pid" >deep.txt
        all=$(awk '/deep_15/ { n += $NF } END { print n + 0 }' deep.txt)
        right=$(awk '/main;deep_01;deep_02;deep_03;deep_04;deep_05;deep_06;deep_07;.*deep_08;deep_09;deep_10;deep_11;deep_12;deep_13;deep_14;deep_15/ { n += $NF } END { print n + 0 }' deep.txt)
        expect "unwind: samples, $mode" "$all: $(head -n 3 deep.txt)" between 100 "$all" 2000
        expect "unwind: all frames, $mode" "$right of $all: $(head -n 3 deep.txt)" [ $((right * 100)) -ge $((all * 95)) ]
    fi
done

# ---- compiled code: one address, two functions
# shellcheck disable=SC2016
if record jit.bpr -e profile -F 99 -- sh -c 'echo pid $$; exec "$0" map 2 6' ./jit; then
    pid=$(sed -n 's/^pid //p' jit.bpr.out)
    report profile jit.bpr -f -U --pid "$pid" >jit.txt
    for phase in phase_1 phase_2; do
        n=$(awk "/$phase/ { n += \$NF } END { print n + 0 }" jit.txt)
        expect "compiled code: $phase" "$n samples: $(head -n 3 jit.txt)" between 50 "$n" 700
    done
fi

# ---- tasks: a short process is named
cp blip blip_fleeting
if record short.bpr -e sched,profile -F 999 -- sh -c "for i in 1 2 3 4 5; do $dir/blip_fleeting; done"; then
    "$here/bpfrec" replay short.bpr --json >short.json 2>>$dir/errors
    n=$(grep '"sched_exec"' short.json | grep -c "$dir/blip_fleeting")
    expect "tasks: five short processes with their path" "$n" [ "$n" = 5 ]
    report profile short.bpr -f -U >short.txt
    n=$(grep -c 'blip_fleeting;.*blip_work' short.txt)
    expect "tasks: their frames resolve" "$(grep blip_fleeting short.txt | head -n 3)" [ "$n" -gt 0 ]
fi

# ---- cgroups: a group that is gone again shows by its path
mkdir -p /sys/fs/cgroup/suite/inner
# shellcheck disable=SC2016
if record cgroup.bpr -e sched -- sh -c '
    mkdir /sys/fs/cgroup/suite/gone
    sh -c "echo \$\$ >/sys/fs/cgroup/suite/gone/cgroup.procs; exec $0 50"
    rmdir /sys/fs/cgroup/suite/gone' $dir/sleeper; then
    n=$(report runqlat cgroup.bpr --json --cgroup /suite/gone | total count)
    expect "cgroups: 50 waits in a group that is gone" "$n waits" between 50 "${n:-0}" 120
fi
# shellcheck disable=SC2016
if record filter.bpr -e sched --cgroup /suite -- sh -c '
    sh -c "echo \$\$ >/sys/fs/cgroup/suite/inner/cgroup.procs; exec $0 50" & "$0" 50; wait' $dir/sleeper; then
    all=$(report runqlat filter.bpr --json | total count)
    inside=$(report runqlat filter.bpr --json --cgroup /suite | total count)
    expect "cgroups: the filter keeps the group's waits" "$inside waits" between 50 "${inside:-0}" 120
    expect "cgroups: the filter drops all others" "$all waits in all, $inside inside" [ "$all" = "$inside" ]
fi

# ---- everything at once, killed
"$here/bpfrec" record -q -o killed.bpr >killed.out 2>&1 &
recorder=$!
$dir/burn 12 >/dev/null
kill -9 $recorder
wait $recorder 2>/dev/null
"$here/bpfrec" recover killed.bpr -o whole.bpr >/dev/null 2>&1
expect "kill -9: what was recorded reads back" "verify failed after recover" quiet_verify whole.bpr
n=$("$here/bpfrec" info whole.bpr --json | tr -d ' \n' | tr ',{}' '\n\n\n' | sed -n 's/^"events":\([0-9]*\)$/\1/p' | head -n 1)
expect "kill -9: with its events" "$n events" between 100 "${n:-0}" 100000000

if [ $failed != 0 ] && [ -s $dir/errors ]; then sed 's/^/# /' $dir/errors; fi
echo "end of suite"
exit $failed
