#!/usr/bin/env bash
# A shopping cart grows until it is killed. See leaking-service.md, and case.sh for the arguments.
# shellcheck source=docs/cases/case.sh
. "$(dirname "$0")/case.sh"

build cart
"$dir/cart" 600 &
cart=$!
sleep 0.5
show record -q -e malloc -p $cart -d "${seconds}s" -o trace.bpr

show report memleak trace.bpr
show analyze trace.bpr -o answers >/dev/null
