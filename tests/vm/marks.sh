#!/bin/sh
# Read by what tests clocks: marks, each a process of its own name, with the moment before it begins as the clocks are then.
# shellcheck disable=SC2154 # what helpers.sh sets

# Marks of $1.out whose process begins at another time in $1.csv than was written down, by over two seconds.
wrong_marks() {
    "$here/bpfrec" export csv "$1.bpr" -o "$1.csv" >>"$dir/errors" 2>&1
    awk -F, -v marks="$1.bpr.out" '
        BEGIN { while ((getline line <marks) > 0) if (split(line, f, " ") == 4 && f[1] ~ /^mark_/) at[f[1]] = f[4] }
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

# For the command that is recorded, with blip beside it.
cat >marks.inc <<'EOS'
mark() {
    cp blip "mark_$1"
    "$here/moment" "mark_$1"
    "./mark_$1"
    sleep 2
}
EOS
export here
