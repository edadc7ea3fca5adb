#!/bin/sh
# Runs inside a virtual machine whose kernel has no types of its own (scripts/vm run -B), beside bpfrec, the workloads of tests/load
# and other.btf, the types of another kernel: with --btf the sources record known events truly, and what cannot be says so.
# As suite.sh: no times, and only a few programs.
# shellcheck disable=SC2154 # what helpers.sh sets
# shellcheck source=tests/vm/helpers.sh
set -u
here=$(cd "$(dirname "$0")" && pwd)
# The C library of a static program keeps a copy of this path, which must not have the size of a leak: 24 bytes.
dir=/dev/shm/bpfrec-types-of-a-file
btf=/run/vm/btf
mkdir -p $dir
cd $dir || exit 1
cp "$here/sleeper" "$here/blip" "$here/burn" "$here/leaks" "$here/holds" .
./sleeper 1
. "$here/helpers.sh"

echo "# kernel $(uname -r) without types of its own"
if [ -e /sys/kernel/btf/vmlinux ]; then not_ok "no types" "/sys/kernel/btf/vmlinux is there"; fi

# ---- what cannot work ends with one sentence, and leaves no file
# NAME WORDS OPTIONS...
refuses() {
    what=$1 words=$2
    shift 2
    "$here/bpfrec" record -q -d 1s -o none.bpr "$@" >refused.txt 2>&1
    status=$?
    expect "$what: it fails" "exit code $status" [ $status = 1 ]
    expect "$what: one sentence" "$(cat refused.txt)" [ "$(grep -c . refused.txt)" = 1 ]
    expect "$what: says $words" "$(cat refused.txt)" grep -q -e "$words" refused.txt
    expect "$what: no file" "none.bpr is there" [ ! -e none.bpr ]
}
refuses "no --btf" "CONFIG_DEBUG_INFO_BTF: --btf FILE"
head -c 65536 /dev/urandom >garbage
refuses "garbage" "garbage: not type information" --btf garbage
refuses "a program" "sleeper: not type information" --btf ./sleeper
refuses "no such file" "nowhere: No such file" --btf nowhere
head -c 100000 $btf >cut
refuses "half a file" "cut: not type information" --btf cut
refuses "another kernel" "types of" --btf "$here/other.btf"
refuses "offcpu by name" "no type information of its own, and waits need it" --btf $btf -e sched,offcpu

# ---- what there is
"$here/bpfrec" record --list-sources --btf $btf >sources.txt 2>>$dir/errors
expect "list-sources: types" "$(cat sources.txt)" grep -q "^types *yes *those of $btf; raw_tp" sources.txt
for name in sched block malloc kmem profile mappings cgroups; do
    expect "list-sources: $name" "$(grep "^$name" sources.txt)" grep -q "^$name *yes" sources.txt
done
expect "list-sources: offcpu is not to be had" "$(grep "^offcpu" sources.txt)" grep -q "^offcpu *no " sources.txt

# ---- block: null_blk completes each request after 200 us
if modprobe null_blk nr_devices=1 queue_mode=2 irqmode=2 completion_nsec=200000 gb=1 bs=4096 submit_queues=1; then
    if record block.bpr --btf $btf -e block -- dd if=/dev/zero of=/dev/nullb0 bs=64k count=200 oflag=direct; then
        report biolatency block.bpr --json >block.json
        n=$(total count <block.json)
        expect "block: 200 requests" "$n requests" between 200 "${n:-0}" 210
        peak=$(buckets <block.json | awk '{ c[NR] = $2; if ($2 > c[p]) p = NR } END { print c[p - 1] + c[p] + c[p + 1] }')
        expect "block: one peak" "$peak of $n around it: $(cat block.json)" between 150 "${peak:-0}" 210
        report biolatency block.bpr -D >block.txt
        expect "block: the disk is named" "$(head -n 5 block.txt)" grep -q nullb0 block.txt
        "$here/bpfrec" replay block.bpr --json 2>>$dir/errors | grep '"block_issue"' >issues.txt
        n=$(grep -c '"bytes":65536,' issues.txt)
        expect "block: with their sizes" "$n of 64 KiB: $(head -n 1 issues.txt)" between 200 "$n" 200
    fi
else
    not_ok "block" "null_blk does not load"
fi

# ---- sched: a hundred sleeps are a hundred waits
if a_hundred_sleeps --btf $btf; then
    "$here/bpfrec" info sched.bpr >sched.info 2>>$dir/errors
    expect "the header says whose types" "$(head -n 20 sched.info)" grep -q '^types  *file$' sched.info
    expect "... and where they were" "$(head -n 20 sched.info)" grep -q "^types_file  *$btf\$" sched.info
    # What ran before the recording began is known from /proc: threads of the kernel, and process 1.
    "$here/bpfrec" analyze sched.bpr -o sched-out >sched.sum 2>>$dir/errors
    expect "tasks that were there are named" "$(cat sched.sum)" grep -qE 'rcu_|kworker|ksoftirqd' sched.txt
fi

# ---- profile: 70 : 30
seventy_thirty --btf $btf

# ---- tasks and cgroups that come and go
cp blip blip_fleeting
# shellcheck disable=SC2016
if record short.bpr --btf $btf -e sched -- sh -c '
    for i in 1 2 3 4 5; do $0/blip_fleeting; done
    mkdir /sys/fs/cgroup/gone
    sh -c "echo \$\$ >/sys/fs/cgroup/gone/cgroup.procs; exec $0/sleeper 50"
    rmdir /sys/fs/cgroup/gone' $dir; then
    "$here/bpfrec" replay short.bpr --json >short.json 2>>$dir/errors
    n=$(grep '"sched_exec"' short.json | grep -c "$dir/blip_fleeting")
    expect "tasks: five short processes with their path" "$n" [ "$n" = 5 ]
    n=$(report runqlat short.bpr --json --cgroup /gone | total count)
    expect "cgroups: 50 waits in a group that is gone" "$n waits" between 50 "${n:-0}" 120
fi

# ---- malloc and kmem
if record malloc.bpr --btf $btf -e malloc -- $dir/leaks 50 20; then
    pid=$(sed -n 's/^pid //p' malloc.bpr.out)
    sed -n 's/^leak //p' malloc.bpr.out | sort >leaks.txt
    "$here/bpfrec" replay malloc.bpr --json 2>>$dir/errors | grep '"kind":"malloc_' | words | awk -v pid="$pid" '{
            for (i = 1; i <= NF; i++) { split($i, f, ":"); v[f[1]] = f[2] }
            if (v["pid"] != pid) next
            if (v["kind"] == "malloc_free") delete live[v["addr"]]; else live[v["addr"]] = v["bytes"]
        } END { for (a in live) if (live[a] == 24 || live[a] == 5000) print a, live[a] }' | sort >live.txt
    n=$(comm -12 live.txt leaks.txt | grep -c .)
    expect "malloc: all 55 leaks are outstanding" "$n" [ "$n" = 55 ]
    expect "malloc: nothing else is" "$(comm -23 live.txt leaks.txt | head -n 3)" [ "$(grep -c . live.txt)" = 55 ]
fi
if record kmem.bpr --btf $btf -e kmem -- sh -c "{ echo; echo; echo; } | $dir/holds 50; sleep 1"; then
    "$here/bpfrec" replay kmem.bpr --json >kmem.json 2>>$dir/errors
    for kind in kmem_alloc kmem_free page_alloc page_free; do
        n=$(grep -c "\"$kind\"" kmem.json)
        expect "kmem: $kind" "$n" [ "$n" -gt 100 ]
    done
fi

if [ "$failed" != 0 ] && [ -s $dir/errors ]; then sed 's/^/# /' $dir/errors; fi
echo "end of suite"
exit "$failed"
