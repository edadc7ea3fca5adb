#!/bin/sh
# Read by suite.sh: the clock of the day is set while it is recorded, and the times of events follow.
# Each mark is a process of its own name; the moment before it begins is written down by the clock of the day as it is then.
# shellcheck disable=SC2154 # what suite.sh has

# Marks of $1.out whose process begins at another time in $1.csv than was written down, by over two seconds.
wrong_marks() {
    "$here/bpfrec" export csv "$1.bpr" -o "$1.csv" >>$dir/errors 2>&1
    awk -F, -v marks="$1.bpr.out" '
        BEGIN { while ((getline line <marks) > 0) if (split(line, f, " ") == 2 && f[1] ~ /^mark_/) at[f[1]] = f[2] }
        ($8 in at) && $1 == "running" && !($8 in seen) { seen[$8] = 1; off[$8] = ($2 - at[$8]) / 1e9 }
        END {
            for (mark in at) {
                if (!(mark in seen)) print mark " is not there"
                else if (off[mark] < -2 || off[mark] > 2) print mark " is " off[mark] " s off"
                else n++
            }
            print n + 0 " right"
        }' "$1.csv"
}

cat >marks.sh <<'EOS'
mark() {
    cp blip "mark_$1"
    echo "mark_$1 $(date +%s%N)"
    "./mark_$1"
    sleep 2
}
set_clock() { # SECONDS further
    date -s "@$(($(date +%s) + $1))" >/dev/null
    sleep 2
}
EOS
if record clock.bpr -e sched -- sh -c '. ./marks.sh
    mark a; set_clock 86400; mark b; set_clock -172800; mark c; set_clock 86400; mark d'; then
    wrong_marks clock >clock.txt
    expect "clock: times follow a clock that is set forward and back" "$(tr '\n' ';' <clock.txt)" grep -q '^4 right$' clock.txt
    expect "clock: the file is whole" "verify failed" quiet_verify clock.bpr
fi
