#!/bin/bash
# `guestmend check` on the shipped sample against `qemu-img info` on it, interleaved; medians and their ratio.
# Also: peak memory, and how much of the guest's disk is read.
set -euo pipefail
cd "$(dirname "$0")/../.."
runs=${1:-21}
cargo build --release --quiet
image=test-images/guest/centos7-vda.qcow2
tool=target/release/guestmend
python3 - "$runs" "$tool" "$image" <<'P'
import os, resource, shutil, statistics, subprocess, sys, time
runs, tool, image = int(sys.argv[1]), sys.argv[2], sys.argv[3]
def once(command):
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    return (time.perf_counter() - start) * 1000, usage.ru_maxrss / 1024
ours, theirs, memory = [], [], 0
has_peer = shutil.which('qemu-img')
for _ in range(runs + 1):
    wall, peak = once([tool, 'check', image]); ours.append(wall); memory = max(memory, peak)
    if has_peer: theirs.append(once(['qemu-img', 'info', image])[0])
a = statistics.median(ours[1:])
print(f'check: {a:.1f} ms median of {runs}, peak {memory:.1f} MiB (limit 32)')
if has_peer:
    b = statistics.median(theirs[1:])
    print(f'qemu-img info: {b:.1f} ms; ratio {a / b:.2f}; limit 2x + 10 ms = {2 * b + 10:.1f} ms: {"ok" if a <= 2 * b + 10 else "MISSED"}')
err = subprocess.run([tool, 'check', image], env={**os.environ, 'GUESTMEND_COUNT_READS': '1'}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True).stderr
print(err.strip(), '(limit 4 MiB)')
P
