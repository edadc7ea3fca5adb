#!/bin/sh
# How much slower a program gets that only allocates and frees while its memory is recorded: unsampled, 1 in 16 and 1 in
# 256, beside BCC's memleak where it is installed and runs. Medians of interleaved rounds, as ratios to the program alone.
# Must be root.
#   bench/malloc.sh [ROUNDS [PAIRS]]
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-5} pairs=${2:-200000}
bpfrec=${BPFREC:-target/release/bpfrec}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cc -O1 -fno-omit-frame-pointer -o "$dir/allocs" bench/load/allocs.c
variants="alone bpfrec bpfrec/16 bpfrec/256 bpfrec-512K"
bcc=$(command -v memleak-bpfcc || command -v memleak || true)
if [ -n "$bcc" ]; then variants="$variants bcc"; fi

# The program waits until it is watched.
measure() { # VARIANT
    rm -f "$dir/go" "$dir/t.bpr" "$dir/tracer.log"
    mkfifo "$dir/go"
    "$dir/allocs" "$pairs" wait <"$dir/go" >"$dir/out" &
    load=$!
    exec 3>"$dir/go"
    tracer=
    case $1 in
    alone) ;;
    bcc)
        "$bcc" -p $load 1000 >"$dir/tracer.log" 2>&1 &
        tracer=$!
        for _ in $(seq 100); do
            if grep -q Attaching "$dir/tracer.log"; then break; fi
            sleep 0.1
        done
        sleep 4 # it says so before it does
        ;;
    *)
        sample=
        case $1 in
        */*) sample="--sample ${1#*/}" ;;
        *-*) sample="--sample-bytes ${1#*-}" ;;
        esac
        # shellcheck disable=SC2086 # an option and its value
        "$bpfrec" record -q -e malloc -p $load $sample -o "$dir/t.bpr" 2>"$dir/tracer.log" &
        tracer=$!
        for _ in $(seq 200); do
            if [ -s "$dir/t.bpr" ]; then break; fi
            sleep 0.05
        done
        ;;
    esac
    if [ -n "$tracer" ] && ! kill -0 $tracer 2>/dev/null; then
        echo "$1 did not run: $(tail -n 1 "$dir/tracer.log")" >&2
    else
        echo x >&3
    fi
    exec 3>&-
    wait $load || true
    if [ -n "$tracer" ]; then
        kill -INT $tracer 2>/dev/null || true
        wait $tracer 2>/dev/null || true
    fi
    cat "$dir/out" >>"$dir/$(echo "$1" | tr / _).ns"
    if [ -s "$dir/t.bpr" ]; then
        "$bpfrec" info "$dir/t.bpr" --json | tr -d ' \n' | sed 's/.*"lost":\([0-9]*\),"bytes".*/\1/' >"$dir/lost"
        if [ "$(cat "$dir/lost")" != 0 ]; then echo "$1 lost $(cat "$dir/lost") events" >&2; fi
    fi
}

for _ in $(seq "$rounds"); do
    for variant in $variants; do measure "$variant"; done
done
median() { sort -n "$dir/$(echo "$1" | tr / _).ns" | awk '{ v[NR] = $1 } END { if (NR) print v[int((NR + 1) / 2)] }'; }
base=$(median alone)
echo "variant        ns/pair    times   (medians of $rounds rounds of $pairs pairs)"
for variant in $variants; do
    ns=$(median "$variant")
    if [ -n "$ns" ]; then
        echo "$variant $ns $base" | awk '{ printf "%-14s %8.0f %8.1f\n", $1, $2, $2 / $3 }'
    else
        echo "$variant was not measured"
    fi
done
