#!/bin/bash
# Makes test-images/volume/md-*.zst: arrays that a Linux kernel wrote, one file for each level, the members of all its
# arrays one after the other at a fixed stride; packed together, as all hold the same pattern.
# Needs qemu-system-x86_64, mdadm, zstd and a kernel with md in /boot; no root. Arrays hold scripts/images/pattern.py.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=test-images/volume
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
stride=$((512 * 1024))
slot=$((8 * stride))

cat >"$work/guest.sh" <<'G'
export MDADM_NO_UDEV=1
modprobe loop 2>/dev/null
stride=524288
slot=0
# setup SIZE...: members of so many KiB each, on /dev/loop0 and up
setup() {
  n=0; loops=""
  for kib in "$@"; do
    rm -f /tmp/m$n; truncate -s ${kib}k /tmp/m$n
    [ -e /dev/loop$n ] || mknod /dev/loop$n b 7 $n
    losetup /dev/loop$n /tmp/m$n; loops="$loops /dev/loop$n"; n=$((n+1))
  done
  sizes="$*"
}
fill() { dd if=/dev/$1 of=/dev/md0 bs=4k count=$(($(blockdev --getsize64 /dev/md0) / 4096)) conv=notrunc 2>/dev/null; sync; }
copy() {
  k=0
  while [ $k -lt $n ]; do
    dd if=/tmp/m$k of=/dev/vdb bs=4k seek=$((slot * 1024 + k * 128)) conv=notrunc 2>/dev/null; k=$((k+1))
  done
  sync; slot=$((slot+1))
}
drop() { k=0; while [ $k -lt $n ]; do losetup -d /dev/loop$k; k=$((k+1)); done; }
stop() { mdadm -q --stop /dev/md0 >/dev/null 2>&1 || { sleep 1; mdadm --stop /dev/md0; }; sync; }
# save NAME: stops and keeps
save() { size=$(blockdev --getsize64 /dev/md0); stop; echo "@ $1 $slot $size $sizes"; copy; drop; }
make() { mdadm --create /dev/md0 --run --assume-clean "$@" >/tmp/log 2>&1 </dev/null || { echo "! $*"; cat /tmp/log; return 1; }; }
# array NAME "SIZES" ARGUMENTS: made, filled, stopped, kept
array() {
  name=$1; setup $2; shift 2
  if make "$@" --raid-devices=$n $loops; then fill vda; save $name; else drop; fi
}
e() { k=0; r=""; while [ $k -lt $1 ]; do r="$r 320"; k=$((k+1)); done; echo $r; }
o=--data-offset=64
array linear-12 "256 320 448" --level=linear --metadata=1.2 $o
array linear-090 "256 320 448" --level=linear --metadata=0.90
array raid0-12 "$(e 3)" --level=0 --chunk=16 --metadata=1.2 $o
array raid0-11-odd "$(e 3)" --level=0 --chunk=12 --metadata=1.1 $o
array raid0-12-zones "256 320 512 448" --level=0 --chunk=8 --metadata=1.2 $o
array raid0-12-zones-original "256 512 320 512 448" --level=0 --chunk=8 --metadata=1.2 --layout=original $o
array raid1-090 "$(e 2)" --level=1 --metadata=0.90
array raid1-10 "320 448" --level=1 --metadata=1.0 --bitmap=none
array raid1-11 "$(e 2)" --level=1 --metadata=1.1 $o
array raid1-12-three "$(e 3)" --level=1 --metadata=1.2 $o
array raid1-12-bitmap "$(e 2)" --level=1 --metadata=1.2 --bitmap=internal $o
array raid4-12 "$(e 4)" --level=4 --chunk=4 --metadata=1.2 $o
for l in left-asymmetric right-asymmetric left-symmetric right-symmetric parity-first parity-last; do
  array raid5-$l "$(e 3)" --level=5 --layout=$l --chunk=4 --metadata=1.2 $o
done
array raid5-090 "$(e 4)" --level=5 --chunk=8 --metadata=0.90
array raid5-10-five "$(e 5)" --level=5 --chunk=16 --metadata=1.0
for l in left-asymmetric right-asymmetric left-symmetric right-symmetric parity-first parity-last \
  ddf-zero-restart ddf-N-restart ddf-N-continue left-asymmetric-6 right-asymmetric-6 left-symmetric-6 right-symmetric-6 parity-first-6; do
  array raid6-$l "$(e 5)" --level=6 --layout=$l --chunk=4 --metadata=1.2 $o
done
array raid6-090 "$(e 4)" --level=6 --chunk=8 --metadata=0.90
array raid10-n2 "$(e 4)" --level=10 --layout=n2 --chunk=4 --metadata=1.2 $o
array raid10-n2-odd "$(e 3)" --level=10 --layout=n2 --chunk=8 --metadata=1.2 $o
array raid10-n3 "$(e 5)" --level=10 --layout=n3 --chunk=4 --metadata=1.2 $o
array raid10-f2 "$(e 4)" --level=10 --layout=f2 --chunk=4 --metadata=1.2 $o
array raid10-f2-odd "$(e 5)" --level=10 --layout=f2 --chunk=16 --metadata=1.2 $o
array raid10-f3 "$(e 4)" --level=10 --layout=f3 --chunk=4 --metadata=1.2 $o
array raid10-o2 "$(e 4)" --level=10 --layout=o2 --chunk=4 --metadata=1.2 $o
array raid10-o2-odd "$(e 3)" --level=10 --layout=o2 --chunk=8 --metadata=1.2 $o
array raid10-090 "$(e 4)" --level=10 --layout=n2 --chunk=4 --metadata=0.90

# A member that failed before the array was written again, with the second pattern.
setup 320 320; make --level=1 --metadata=1.2 --bitmap=none $o --raid-devices=2 $loops && fill vda
mdadm -q /dev/md0 --fail /dev/loop1 --remove /dev/loop1; fill vdc; save stale-raid1
setup 320 320 320; make --level=5 --chunk=4 --metadata=1.2 $o --raid-devices=3 $loops && fill vda
mdadm -q /dev/md0 --fail /dev/loop0 --remove /dev/loop0; fill vdc; save stale-raid5
setup 320 320; make --level=1 --metadata=0.90 --bitmap=none --raid-devices=2 $loops && fill vda
mdadm -q /dev/md0 --fail /dev/loop0 --remove /dev/loop0; fill vdc; save stale-090
# A spare beside a whole array.
setup 320 320 320 320; make --level=5 --chunk=4 --metadata=1.2 $o --raid-devices=3 --spare-devices=1 $loops && fill vda; save spare
# A member that was being rebuilt.
for meta in 1.2 0.90; do
d=$o; [ $meta = 0.90 ] && d=
setup 448 448 448; make --level=5 --chunk=4 --metadata=$meta $d --raid-devices=3 /dev/loop0 /dev/loop1 /dev/loop2 && fill vda
mdadm -q /dev/md0 --fail /dev/loop1 --remove /dev/loop1; mdadm -q --zero-superblock /dev/loop1
dd if=/dev/vdc of=/dev/loop1 bs=64k count=7 2>/dev/null
echo 128 >/sys/block/md0/md/sync_max; mdadm -q /dev/md0 --add /dev/loop1; sleep 3; cat /proc/mdstat | sed 's/^/# /'
save recovering-$meta
done
# Sectors that could not be read, on one member each.
setup 320 320; make --level=1 --metadata=1.2 --bitmap=none $o --raid-devices=2 $loops && fill vda
off=$(cat /sys/block/md0/md/dev-loop0/offset)
echo "$((off + 8)) 8" >/sys/block/md0/md/dev-loop0/bad_blocks || echo "! bad_blocks"
echo "$((off + 40)) 3" >/sys/block/md0/md/dev-loop1/bad_blocks
sleep 1; save bad-blocks-raid1
setup 320 320 320; make --level=5 --chunk=4 --metadata=1.2 $o --raid-devices=3 $loops && fill vda
off=$(cat /sys/block/md0/md/dev-loop0/offset)
echo "$((off + 8)) 8" >/sys/block/md0/md/dev-loop0/bad_blocks
echo "$((off + 40)) 3" >/sys/block/md0/md/dev-loop1/bad_blocks
sleep 1; save bad-blocks-raid5
# Copied while it was being written.
setup 320 320 320; make --level=5 --chunk=4 --metadata=1.2 $o --raid-devices=3 $loops && fill vda
echo 100 >/sys/block/md0/md/safe_mode_delay; dd if=/dev/vda of=/dev/md0 bs=4k count=4 conv=notrunc 2>/dev/null; sync
size=$(blockdev --getsize64 /dev/md0); echo "@ dirty $slot $size $sizes"; copy; stop; drop
# From three members to four, interrupted.
setup 512 512 512 512; make --level=5 --chunk=4 --metadata=1.2 --data-offset=192 --raid-devices=3 /dev/loop0 /dev/loop1 /dev/loop2 && fill vda
size=$(blockdev --getsize64 /dev/md0)
echo 1 >/sys/block/md0/md/sync_speed_max; echo 1 >/sys/block/md0/md/sync_speed_min
mdadm -q /dev/md0 --add /dev/loop3; mdadm --grow /dev/md0 --raid-devices=4 >/tmp/log 2>&1 || { echo "! grow"; cat /tmp/log; }
sleep 2; cat /proc/mdstat | sed 's/^/# /'; echo frozen >/sys/block/md0/md/sync_action; stop; echo "@ reshape $slot $size $sizes"; copy; drop
# A write journal.
setup 320 320 320 512; mdadm -q --create /dev/md0 --run --assume-clean --level=5 --chunk=4 --metadata=1.2 $o --raid-devices=3 /dev/loop0 /dev/loop1 /dev/loop2 --write-journal /dev/loop3 >/tmp/log 2>&1 </dev/null && { fill vda; save journal; } || { echo "! journal"; cat /tmp/log; drop; }
# A replacement for a member that still works.
setup 448 448 448; make --level=1 --metadata=1.2 --bitmap=none $o --raid-devices=2 /dev/loop0 /dev/loop1 && fill vda
echo 128 >/sys/block/md0/md/sync_max; mdadm -q /dev/md0 --add /dev/loop2; mdadm -q /dev/md0 --replace /dev/loop0 --with /dev/loop2; sleep 3
cat /proc/mdstat | sed 's/^/# /'; save replacing
echo "kernel $(uname -r), $(mdadm --version 2>&1)"
G
scripts/images/pattern.py 1 8192 >"$work/one"
scripts/images/pattern.py 2 8192 >"$work/two"
truncate -s $((100 * slot)) "$work/out"
scripts/oracles/in-guest.py --timeout 900 --disk "$work/one" --disk "$work/out" --disk "$work/two" "$work/guest.sh" >"$work/log"
grep -v '^@' "$work/log" >&2 || true
tools=$(sed -n 's/^kernel //p' "$work/log" | tail -1)
rm -f "$out"/md-*.zst "$out"/md-*.toml
for group in $(sed -n 's/^@ \([a-z0-9]*\).*/\1/p' "$work/log" | sed 's/^raid4$/raid5/; s/^[^rl].*/states/; s/^re.*/states/' | sort -u); do
  : >"$work/packed"
  : >"$work/list"
  first=0
  while read -r _ name number size sizes; do
    case $name in
      linear* | raid0* | raid1-* | raid5* | raid6* | raid10*) own=${name%%-*} ;;
      raid4*) own=raid5 ;;
      *) own=states ;;
    esac
    [ "$own" = "$group" ] || continue
    count=$(wc -w <<<"$sizes")
    dd if="$work/out" bs=$stride skip=$((number * 8)) count="$count" status=none >>"$work/packed"
    members=$(for kib in $sizes; do printf '%s, ' $((kib * 1024)); done | sed 's/, $//')
    echo "$name = { first = $first, members = [$members], size = $size }" >>"$work/list"
    first=$((first + count))
  done < <(grep '^@' "$work/log")
  zstd -19 --long=26 -q -f "$work/packed" -o "$out/md-$group.zst"
  cat >"$out/md-$group.toml" <<T
# Members of md arrays as the kernel left them.
recipe = "scripts/images/md.sh"
tools = "$tools"
sha256 = "$(sha256sum <"$work/packed" | cut -d' ' -f1)"
size = $(stat -c %s "$work/packed")

# Member N of all begins at byte N * $stride. Each array: its first member, the members' sizes, and its own size in
# bytes, all of which scripts/images/pattern.py filled: with seed 2 where a member is stale, else with seed 1.
[arrays]
$(cat "$work/list")
T
done
du -cb "$out"/md-*.zst | tail -1
