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
    tr -d ' \n' | sed 's/"buckets":\[[^]]*\]//g' | tr ',{}' '\n\n\n' | awk -F: -v f="\"$1\"" '$1 == f { n += $2 } END { printf "%d", n }'
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
