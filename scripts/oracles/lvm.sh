#!/bin/bash
# Compares what we make of test-images/volume/lvm-* with what lvm2 and a kernel make of them, in a throw-away guest.
# Prints a table: case, judge, verdict. No root; needs QEMU, lvm2, zstd (see scripts/oracles/in-guest.py).
# usage: lvm.sh [CASE...]; a case is NAME or NAME-without-N, where disk N is not attached.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
work=$(mktemp -d "${TMPDIR:-/tmp}/lvm-oracle.XXXXXX")
trap 'rm -rf "$work"' EXIT
cargo build -q --manifest-path "$root/Cargo.toml" -p guestmend-volume --example lvm_list || exit 2
list=$target/debug/examples/lvm_list
failed=0
verdict() { # case judge rc note
  local word=ok
  [ "$3" = 0 ] || { word=FAIL failed=1; }
  printf '%-22s %-40s %-5s %s\n' "$1" "$2" "$word" "${4:-}"
}
cat >"$work/script" <<'G'
vgchange -q -ay --activationmode degraded 2>/dev/null >/dev/null
lvs -a --noheadings --separator '|' --units b --nosuffix -o vg_name,lv_name,lv_uuid,segtype,seg_start_pe,seg_size_pe,lv_role,devices 2>/dev/null | sed 's/^ */LIST|/'
pvs --noheadings --separator '|' -o pv_name,pv_uuid 2>/dev/null | sed 's/^ */PV|/'
for device in /dev/[a-z]g/*; do [ -b "$device" ] && sum=$(sha256sum <"$device" 2>/dev/null) && echo "SUM|${device#/dev/}|${sum%% *}"; done
true
G
for case in "${@:-raid stale thin cache-through cache-back cache-vol snapshot reshape raid-without-1 raid-without-3 stale-without-1 cache-through-without-2 reshape-without-2}"; do
  for case in $case; do
    name=${case%-without-*}
    missing=${case##*-without-}
    case $name in raid) count=5 ;; stale) count=3 ;; reshape) count=4 ;; snapshot) count=1 ;; *) count=2 ;; esac
    zstd -qdcf "$root/test-images/volume/lvm-$name.zst" >"$work/image"
    size=$(($(stat -c %s "$work/image") / count))
    disks=() arguments=()
    for number in $(seq $count); do
      dd if="$work/image" of="$work/pv$number" bs=$size skip=$((number - 1)) count=1 status=none
      cp "$work/pv$number" "$work/guest$number"
      [ "$case" != "$name" ] && [ "$number" = "$missing" ] && continue
      disks+=("$work/pv$number")
      arguments+=(--disk "$work/guest$number")
    done
    python3 "$here/in-guest.py" --timeout 500 "${arguments[@]}" "$work/script" >"$work/said" || { verdict "$case" guest 1; continue; }
    "$list" "${disks[@]}" | grep -v '|snapshot[0-9]*|' >"$work/ours"
    python3 - "$work/said" "$work/ours" >"$work/difference" <<'P'
import re
import sys

said = [line.rstrip("\n").split("|") for line in open(sys.argv[1])]
pvs = {f[1]: f[2] for f in said if f[0] == "PV"}
theirs = set()
for f in said:
    if f[0] == "LIST":
        _, vg, lv, uuid, kind, start, count, role, devices = f
        devices = re.sub(r"([^,(]+)\((\d+)\)", lambda m: "%s(%s)" % (pvs.get(m[1], m[1]), m[2]), devices)
        theirs.add((vg, lv.strip("[]"), uuid, kind, start, count, "hidden" if lv[0] == "[" else "", devices))
ours = set()
for line in open(sys.argv[2]):
    f = tuple(line.rstrip("\n").split("|"))
    ours.add(f)
# lvs shows no devices for missing volumes and for thin ones; a cache's or pool's lie in other columns of ours.
def comparable(f):
    bare = f[3] in ("thin", "thin-pool", "cache", "cache-pool") or "unknown" in f[7] or "missing" in f[7]
    return f[:7] + (("",) if bare else (f[7],))
a = {comparable(f) for f in theirs}
unknown = {f[:7] for f in theirs if "unknown" in f[7] or "missing" in f[7]}
b = {comparable(f[:7] + ("unknown",) if f[:7] in unknown else f) for f in ours}
for f in sorted(a - b): print("lvs :", f)
for f in sorted(b - a): print("ours:", f)
sys.exit(a != b or not a)
P
    verdict "$case" "lvs -a: uuid, type, extents, devices" $? "$(wc -l <"$work/ours") segments"
    head -6 "$work/difference"
    same=0 different=
    while IFS='|' read -r _ lv sum; do
      ours=$("$list" --cat "$lv" "${disks[@]}" 2>/dev/null | sha256sum | cut -c1-64)
      if [ "$ours" = "$sum" ]; then same=$((same + 1)); else different="$different $lv"; fi
    done < <(grep '^SUM|' "$work/said" | grep -v '/pool|')
    if [ -z "$different" ] && [ $same = 0 ]; then
      printf '%-22s %-40s %-5s\n' "$case" "the kernel's bytes of every volume" "none: it activates nothing"
    else
      verdict "$case" "the kernel's bytes of every volume" "$([ -z "$different" ]; echo $?)" "$same the same${different:+, different:$different}"
    fi
  done
done
exit $failed
