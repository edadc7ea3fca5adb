#!/bin/sh
# What the suites of virtual machines share; read with ".", after `here` and `dir` are set. `failed` becomes 1 with the first
# "not ok".
# shellcheck disable=SC2034,SC2154,SC2317 # what is set here, or there, and called by name
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
    tr -d ' \n' | sed 's/"buckets":\[[^]]*\]//g' | tr ',{}' '\n\n\n' | awk -F: -v f="\"$1\"" '$1 == f { n += $2 } END { printf "%.0f", n }'
}
# Lower bound in the report's unit and count of each bucket that is not empty.
buckets() {
    tr -d ' \n' | tr '{}' '\n\n' | sed -n 's/.*"low":\([0-9]*\),"high":[0-9]*,"count":\([0-9]*\).*/\1 \2/p' | awk '$2 > 0'
}
record() { # FILE OPTIONS -- COMMAND
    file=$1
    shift
    # A system call that the recorder's filter does not foresee ends it.
    "$here/bpfrec" record -q --sandbox kill -o "$file" "$@" >"$file.out" 2>&1
    status=$?
    if [ $status != 0 ]; then
        not_ok "record $*" "exit code $status: $(tail -n 3 "$file.out" | tr '\n' ' ')"
        return 1
    fi
}
report() { "$here/bpfrec" report "$@" 2>>$dir/errors; }

# ---- checks that more than one suite makes

# A hundred sleeps are a hundred waits. Options of the recorder may be given; sched.bpr is left.
a_hundred_sleeps() {
    # shellcheck disable=SC2016 # for the inner shell
    record sched.bpr -e sched "$@" -- sh -c 'echo pid $$; exec "$0" 100' "$dir/sleeper" || return
    pid=$(sed -n 's/^pid //p' sched.bpr.out)
    n=$(report runqlat sched.bpr --json --pid "$pid" | total count)
    # Sleeping is 1, with a flag for freezable from 6.1 on; the shell before it may sleep a few times.
    sleeps=$("$here/bpfrec" replay sched.bpr --json | grep '"sched_switch"' | grep "\"prev_tid\":$pid," | grep -cE '"prev_state":(1|8193),')
    expect "sched: 100 switches out of the sleeper" "$sleeps" between 100 "$sleeps" 130
    expect "sched: 100 waits of the sleeper" "$n waits" between 100 "${n:-0}" 180
    report runqlat sched.bpr -P >sched.txt
    expect "sched: it is named" "$(grep -c . sched.txt) lines without sleeper" grep -q sleeper sched.txt
    expect "sched: the file is whole" "verify failed" quiet_verify sched.bpr
}

# 70 % of the time in one function, 30 in the other.
seventy_thirty() {
    # shellcheck disable=SC2016
    record profile.bpr -e profile -F 99 "$@" -- sh -c 'echo pid $$; exec "$0" 20' "$dir/burn" || return
    pid=$(sed -n 's/^pid //p' profile.bpr.out)
    report profile profile.bpr -f --pid "$pid" >folded.txt
    seventy=$(awk '/burn_seventy/ { n += $NF } END { print n + 0 }' folded.txt)
    thirty=$(awk '/burn_thirty/ { n += $NF } END { print n + 0 }' folded.txt)
    n=$((seventy + thirty))
    expect "profile: the functions are found" "$seventy and $thirty: $(head -n 3 folded.txt)" between 500 $n 2200
    share=$((n > 0 ? 100 * seventy / n : 0))
    expect "profile: 70 % in burn_seventy" "$share %" between 62 $share 78
}

# Fields of an event of replay --json, as NAME:VALUE words.
words() { tr -d '{}"' | tr ',' ' '; }
