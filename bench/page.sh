#!/bin/sh
# How long report.html of a trace takes to make, how large it is, and how long Chromium takes to open it: from the start of
# the navigation until all figures are shown. Median and worst of several openings, each in a new browser context.
# Needs a release build and scripts/deps test.
#   bench/page.sh TRACE [OPENINGS]
set -eu
trace=$1 openings=${2:-7}
root=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$root/target/release/bpfrec" info "$trace" | head -n 12
start=$(date +%s%N)
"$root/target/release/bpfrec" report html "$trace" -o "$dir/report.html" || [ $? = 3 ]
echo "made in $((($(date +%s%N) - start) / 1000000)) ms"
"$root/target/venv/bin/python" - "$(command -v chromium)" "$dir/report.html" "$openings" <<'END'
import statistics
import sys
from playwright.sync_api import sync_playwright

chromium, page, openings = sys.argv[1:]
flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
times = []
with sync_playwright() as play:
    browser = play.chromium.launch(executable_path=chromium, headless=True, args=flags)
    for _ in range(int(openings)):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        tab = context.new_page()
        tab.goto("file://" + page)
        tab.wait_for_function("document.documentElement.dataset.ready", timeout=60000)
        times.append(int(tab.evaluate("document.documentElement.dataset.ready")))
        context.close()
    browser.close()
print(f"opened in {statistics.median(times):.0f} ms (median of {len(times)}), {max(times)} ms at worst")
END
