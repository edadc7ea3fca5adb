#!/usr/bin/python3
"""BCC's memleak and bpfrec over the same seconds, in a virtual machine as root: the same stacks and the same counts.

    memleak_peer.py HEADERS        beside the programs bpfrec, holds and leaks; HEADERS: "scripts/vm headers KERNEL"

First what a program holds in the kernel (pipes, sockets, epoll instances), then what a program leaks. Prints
"ok NAME" and "not ok NAME: WHY" lines, then "end of suite". BCC compiles its probes for this kernel first: it needs the
kernel's headers, and under emulation some 20 s.
"""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

HERE = os.path.dirname(os.path.abspath(__file__))
SECONDS = 12  # that BCC watches, before it prints once
PEER = next(p for p in ("/usr/sbin/memleak-bpfcc", "/usr/share/bcc/tools/memleak") if os.path.exists(p))
failed = False


def expect(name, why, condition):
    global failed
    failed |= not condition
    print(f"ok {name}" if condition else f"not ok {name}: {why}", flush=True)


class Load:
    """A program that goes one step further when it is sent a byte, and says so in a line."""

    def __init__(self, *args):
        program = [os.path.join(HERE, args[0]), *map(str, args[1:])]
        self.child = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def go(self, until):
        self.child.stdin.write("x")
        self.child.stdin.flush()
        return self.read(until)

    def read(self, until):
        while True:
            line = self.child.stdout.readline()
            assert line, f"{self.child.args} ended before `{until}`"
            if line.startswith(until):
                return line


def both(options, bcc_options, trace, act):
    """Records and lets BCC watch while act() runs. Returns BCC's text."""
    recorder = subprocess.Popen([f"{HERE}/bpfrec", "record", "-q", "--ring-size", "32M", "-o", trace, *options])
    while not os.path.exists(trace) or os.path.getsize(trace) == 0:
        assert recorder.poll() is None, "bpfrec record ended"
        time.sleep(0.1)
    watch = [sys.executable, "-u", PEER, "-o", "0", "-T", "100000", *bcc_options, str(SECONDS), "1"]
    with open(trace + ".bcc", "w+") as out:
        bcc = subprocess.Popen(watch, stdout=out, stderr=out)
        said = lambda: open(trace + ".bcc").read()
        while "Attaching" not in said():
            assert bcc.poll() is None, f"BCC ended: {said()[-2000:]}"
            time.sleep(0.2)
        if bcc_options:
            time.sleep(SECONDS / 3)  # of a process it says so before it does
        act()
        assert bcc.wait() == 0, said()[-2000:]
    recorder.send_signal(signal.SIGINT)
    assert recorder.wait() == 0, "bpfrec record failed"
    return said()


def stacks_of_bcc(text):
    """Functions, leaf first -> allocations."""
    stacks, functions, count = Counter(), [], 0
    for line in [*text.splitlines(), ""]:
        if line.startswith("\t\t"):
            functions.append(name_of(line.split("\t")[-1]))
            continue
        if functions:
            stacks[tuple(functions)] += count
        found = re.match(r"\t\d+ bytes in (\d+) allocations from stack$", line)
        functions, count = [], int(found[1]) if found else 0
    return stacks


def name_of(frame):
    """`ep_alloc+0x1f [kernel]` -> `ep_alloc`."""
    return re.sub(r"\+0x[0-9a-f]+$", "", re.sub(r" \[[^]]*\]$", "", frame))


def bpfrec(*args):
    done = subprocess.run([f"{HERE}/bpfrec", *args, "--json"], stdout=subprocess.PIPE)
    # 3: an interrupt in the middle of a probe left another one out, and it was counted.
    assert done.returncode in (0, 3), f"bpfrec {args}: {done.returncode}"
    return json.loads(done.stdout)


def stacks_of_bpfrec(trace, *options):
    """As stacks_of_bcc(), without the frames of its own probe."""
    own = re.compile(r"bpf_prog_|bpf_trace_run|bpf_trampoline")
    stacks = Counter()
    for group in bpfrec("report", "memleak", trace, "-o", "0", *options)["groups"]:
        for stack in group["stacks"]:
            functions = [f for f in stack["stack"] or [] if not own.match(f)]
            stacks[tuple(functions)] += stack["count"]
    return stacks


def compare(what, ours, theirs, through, least):
    """Stacks through one of the functions, up to the frames that both name, have the same counts."""
    pick = lambda stacks: {s: n for s, n in stacks.items() if n >= least and not through.isdisjoint(s)}
    ours, theirs = pick(ours), pick(theirs)
    expect(f"{what}: BCC has stacks of all", list(theirs), all(any(f in s for s in theirs) for f in through))
    missing = [s for s in theirs if s not in ours] + [s for s in ours if s not in theirs]
    expect(f"{what}: {len(theirs)} stacks, the same ones", missing, not missing)
    # Either may miss one that an interrupt falls into.
    off = [(s, ours[s], n) for s, n in theirs.items() if s in ours and abs(ours[s] - n) * 100 > n]
    equal = sum(ours.get(s) == n for s, n in theirs.items())
    print(f"# {what}: {equal} of {len(theirs)} stacks with the very same count, {sum(theirs.values())} allocations")
    expect(f"{what}: the same counts", off, not off)


def kernel():
    n = 200
    holds = Load("holds", n)
    holds.read("ready")
    from_ns = []

    def act():
        from_ns.append(time.monotonic_ns())
        holds.go("open")

    text = both(["-e", "kmem"], [], "kernel.bpr", act)
    start_ns = int(bpfrec("info", "kernel.bpr")["header"]["start_mono_ns"])
    ours = stacks_of_bpfrec("kernel.bpr", "--kernel", "--from", f"{(from_ns[0] - start_ns) // 1_000_000}ms")
    compare("kernel", ours, stacks_of_bcc(text), {"do_pipe2", "__sys_socket", "do_epoll_create"}, n // 2)


def program():
    # In memory: BCC cannot probe a file of the guest's root.
    shutil.copy(f"{HERE}/leaks", "leaks")
    leaks = Load(os.path.abspath("leaks"), 200, 20, "wait")
    pid = leaks.read("pid").split()[1]
    bcc = ["-p", pid, "-O", os.path.abspath("leaks")]
    text = both(["-e", "malloc", "-p", pid], bcc, "program.bpr", lambda: leaks.go("sum"))
    # BCC has no names for what lies outside of the program.
    up_to_main = lambda stacks: Counter({s[: s.index("main") + 1]: n for s, n in stacks.items() if "main" in s})
    ours = up_to_main(stacks_of_bpfrec("program.bpr", "--user", "--pid", pid))
    compare("program", ours, up_to_main(stacks_of_bcc(text)), {"leak_small", "leak_large"}, 1)
    leaks.child.communicate("x")


print(f"# kernel {os.uname().release}, {PEER}")
for folder in os.listdir(sys.argv[1]):
    if not os.path.lexists(f"/usr/src/{folder}"):
        os.symlink(f"{sys.argv[1]}/{folder}", f"/usr/src/{folder}")
os.makedirs("/dev/shm/peer", exist_ok=True)
os.chdir("/dev/shm/peer")
kernel()
program()
print("end of suite")
sys.exit(failed)
