#!/bin/sh
# Read by suite.sh: the clock of the day is set while it is recorded, and the times of events follow.
# shellcheck disable=SC2154 # what suite.sh has
# shellcheck source=tests/vm/marks.sh
. "$here/marks.sh"

cat >set_clock.inc <<'EOS'
set_clock() { # SECONDS further
    date -s "@$(($(date +%s) + $1))" >/dev/null
    sleep 2
}
EOS
if record clock.bpr -e sched -- sh -c '. ./marks.inc; . ./set_clock.inc
    mark a; set_clock 86400; mark b; set_clock -172800; mark c; set_clock 86400; mark d'; then
    wrong_marks clock >clock.txt
    expect "clock: times follow a clock that is set forward and back" "$(tr '\n' ';' <clock.txt)" grep -q '^4 right$' clock.txt
    expect "clock: the file is whole" "verify failed" quiet_verify clock.bpr
fi
