#!/bin/bash
# Makes test-images/volume/lvm-*.zst: groups of small physical volumes that a Linux kernel wrote, laid end to end.
# Needs QEMU and lvm2 (see scripts/oracles/in-guest.py), no root. usage: lvm.sh [NAME...]
# Prints what the .toml files say. Seeds of patterns: see the scripts below and crates/volume/tests/volumes/lvm2.rs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$here/../../test-images/volume
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
# 40 patterns of 2 MiB, the one of seed N at N * 2 MiB.
for seed in $(seq 0 39); do python3 "$here/pattern.py" "$seed" 4096; done >"$work/pattern"

# In the guest: `put DEVICE SEED [SECTORS [FIRST]]` writes a pattern, or a part of it, where it belongs.
prelude='
exec 2>&1
set -e
pattern=/dev/$(ls /sys/block | grep "^vd" | tail -n 1)
put() { dd if=$pattern of=$1 bs=512 count=$3 skip=$(($2 * 4096 + ${4:-0})) seek=${4:-0} conv=notrunc,fsync 2>/dev/null; }
size() { echo $(($(blockdev --getsize64 $1) / 512)); }
fill() { put /dev/$1 $2 $(size /dev/$1); }
in_sync() { for n in $(seq 100); do [ "$(lvs --noheadings -o sync_percent $1 | tr -d " ")" = 100.00 ] && return; sleep 0.1; done; lvs -a $1; return 1; }
'
disks() { # COUNT MIB
  arguments=()
  for number in $(seq "$1"); do
    [ -e "$work/pv$number" ] || truncate -s "$2M" "$work/pv$number"
    arguments+=(--disk "$work/pv$number")
  done
  arguments+=(--disk "$work/pattern")
}
guest() { # reads a script
  { echo "$prelude"; cat; } >"$work/script"
  python3 "$here/../oracles/in-guest.py" --timeout 550 "${arguments[@]}" "$work/script"
}
pack() { # NAME COUNT
  for number in $(seq "$2"); do cat "$work/pv$number"; done >"$work/image"
  zstd -19 -q -f "$work/image" -o "$out/lvm-$1.zst"
  echo "lvm-$1: $(stat -c %s "$out/lvm-$1.zst") packed; sha256 = \"$(sha256sum <"$work/image" | cut -d' ' -f1)\"; size = $(stat -c %s "$work/image")"
  [ -z "${KEEP:-}" ] || cp "$work/image" "$KEEP/lvm-$1.img"
}

make_raid() {
  disks 5 6
  guest <<'G'
pvcreate -q /dev/vd[a-e]; vgcreate -q -s 32k rg /dev/vd[a-e]
make() { name=$1; seed=$2; shift 2; lvcreate -q -y -Zn -Wn -l 6 -n $name "$@" rg || { echo "FAILED $name"; return 0; }; eval "seed_$name=$seed"; names="$names $name"; }
names=
make linear 1 --type linear
make striped 2 --type striped -i 3 -I 4k
make raid0 3 --type raid0 -i 3 -I 4k
make raid0_meta 4 --type raid0_meta -i 3 -I 4k
make raid1 5 --type raid1 -m 2
make mirror 6 --type mirror -m 1 --mirrorlog core
make raid4 7 --type raid4 -i 3 -I 4k
make raid5_ls 8 --type raid5_ls -i 3 -I 4k
make raid5_la 9 --type raid5_la -i 3 -I 4k
make raid5_rs 10 --type raid5_rs -i 3 -I 4k
make raid5_ra 11 --type raid5_ra -i 3 -I 4k
make raid5_n 12 --type raid5_n -i 3 -I 4k
make raid6_zr 13 --type raid6_zr -i 3 -I 4k
make raid6_nr 14 --type raid6_nr -i 3 -I 4k
make raid6_nc 15 --type raid6_nc -i 3 -I 4k
make raid6_ls_6 16 --type raid6_ls_6 -i 3 -I 4k
make raid6_la_6 17 --type raid6_la_6 -i 3 -I 4k
make raid6_rs_6 18 --type raid6_rs_6 -i 3 -I 4k
make raid6_ra_6 19 --type raid6_ra_6 -i 3 -I 4k
make raid6_n_6 20 --type raid6_n_6 -i 3 -I 4k
make raid10 21 --type raid10 -i 2 -m 1 -I 4k
make mirror_log 22 --type mirror -m 1 --mirrorlog disk
for name in $names; do
  case $name in mirror*|raid[1-9]*) in_sync rg/$name;; esac
  fill rg/$name $(eval echo \$seed_$name)
done
lvextend -q -l +6 rg/linear /dev/vde; fill rg/linear 1
sync; lvs -a -o name,segtype,size,sync_percent,devices rg
vgchange -q -an rg
G
  pack raid 5
}

make_stale() {
  disks 3 4
  guest <<'G'
pvcreate -q --metadatasize 256k --dataalignment 64k /dev/vd[a-c]; vgcreate -q -s 32k sg /dev/vd[a-c]
lvcreate -q -y -Zn -Wn -l 12 -n one --type raid1 -m 1 sg /dev/vda /dev/vdb
lvcreate -q -y -Zn -Wn -l 12 -n five --type raid5_ls -i 2 -I 4k sg
in_sync sg/one; in_sync sg/five; fill sg/one 1; fill sg/five 2
vgchange -q -an sg
G
  # Without the first disk, so that its legs miss what is written now.
  local all=("${arguments[@]}")
  arguments=("${all[@]:2}")
  guest <<'G'
vgchange -q -ay --activationmode degraded sg || true
fill sg/one 3; fill sg/five 4
dmsetup status
vgchange -q -an sg
G
  pack stale 3
}

make_thin() {
  disks 2 8
  guest <<'G'
pvcreate -q --metadatasize 256k --dataalignment 64k /dev/vd[ab]; vgcreate -q -s 64k tg /dev/vd[ab]
lvcreate -q -y -Zn -Wn -L 512k -n base tg /dev/vdb
fill tg/base 9
lvchange -q -an tg/base; lvchange -q -pr tg/base
lvcreate -q -y --type thin-pool -L 5m -c 64k --poolmetadatasize 2m --poolmetadataspare n -Zy -n pool tg
lvcreate -q -y -V 6m --thinpool pool -n one tg
put /dev/tg/one 1 1000 0; put /dev/tg/one 1 1000 3000; put /dev/tg/one 1 300 9000 || true
dd if=$pattern of=/dev/tg/one bs=512 count=256 skip=$((2*4096)) seek=8192 conv=fsync 2>/dev/null
lvcreate -q -y -s -kn -n snap tg/one
put /dev/tg/snap 3 200 100; put /dev/tg/one 4 256 3200
blkdiscard -o $((3456*512)) -l $((256*512)) /dev/tg/one || echo no discard
lvcreate -q -y -s -kn --thinpool pool -n ext tg/base
put /dev/tg/ext 5 128 256
lvcreate -q -y -V 1m --thinpool pool -n empty tg
for n in 1 2 3 4 5 6 7 8; do lvcreate -q -y -V 256k --thinpool pool -n many$n tg; put /dev/tg/many$n $((20 + n)) 100 $((n * 10)); done
lvs -a -o name,segtype,size,data_percent,origin,thin_id,devices tg
dmsetup table; dmsetup status
for lv in one snap ext; do sha256sum /dev/tg/$lv; done
vgchange -q -an tg
G
  pack thin 2
}

make_cache() {
  for kind in through back vol; do
    rm -f "$work"/pv*
    disks 2 8
    { echo "kind=$kind"; cat <<'G'
pvcreate -q --metadatasize 128k --dataalignment 64k /dev/vd[ab]; vgcreate -q -s 64k cg /dev/vda /dev/vdb
lvcreate -q -y -Zn -Wn -L 1m -n data cg /dev/vda
fill cg/data 1
case $kind in
through) lvcreate -q -y --type cache-pool -L 1m -c 32k --poolmetadatasize 2m --poolmetadataspare n --cachemode writethrough -n fast cg /dev/vdb
  lvconvert -q -y --type cache --cachepool fast --cachemode writethrough --cachemetadataformat 1 cg/data;;
back) lvcreate -q -y --type cache-pool -L 1m -c 32k --poolmetadatasize 2m --poolmetadataspare n --cachemode writeback -n fast cg /dev/vdb
  lvconvert -q -y --type cache --cachepool fast --cachemode writeback --cachesettings migration_threshold=2048 cg/data;;
vol) lvcreate -q -y -Zn -Wn -L 4m -n fast cg /dev/vdb
  lvconvert -q -y --type cache --cachevol fast --cachemode writeback -c 32k cg/data;;
esac
sleep 1
for n in 1 2 3 4 5 6; do
  put /dev/cg/data 2 512 1024; put /dev/cg/data 3 64 64
  dd if=/dev/cg/data of=/dev/null bs=32k iflag=direct 2>/dev/null
  dd if=$pattern of=/dev/cg/data bs=32k count=8 skip=$((4*64+24)) seek=24 oflag=direct conv=notrunc 2>/dev/null
done
sync; sleep 2
dmsetup status; dmsetup table
sha256sum /dev/cg/data
lvs -a -o name,segtype,cache_mode,cache_dirty_blocks,devices cg
# The guest ends with this write in the cache only.
[ $kind = through ] || dd if=$pattern of=/dev/cg/data bs=32k count=4 skip=$((5*64+16)) seek=16 oflag=direct conv=notrunc 2>/dev/null
[ $kind != through ] || vgchange -q -an cg
G
    } >"$work/cache-script"
    guest <"$work/cache-script"
    pack "cache-$kind" 2
  done
}

make_snapshot() {
  disks 1 6
  guest <<'G'
pvcreate -q --metadatasize 128k --dataalignment 64k /dev/vda; vgcreate -q -s 64k ng /dev/vda
lvcreate -q -y -Zn -Wn -L 2m -n data ng
fill ng/data 1
lvcreate -q -y -s -c 4k -L 1m -n early ng/data
put /dev/ng/data 2 300 500
lvcreate -q -y -s -c 16k -L 1m -n late ng/data
put /dev/ng/data 3 100 2000; put /dev/ng/late 4 77 1001; put /dev/ng/early 5 64 520
for lv in data early late; do sha256sum /dev/ng/$lv; done
dmsetup table; dmsetup status
vgchange -q -an ng
G
  pack snapshot 1
}

make_reshape() {
  disks 4 4
  guest <<'G'
pvcreate -q --metadatasize 256k --dataalignment 64k /dev/vd[a-d]; vgcreate -q -s 32k hg /dev/vd[a-d]
lvcreate -q -y -Zn -Wn -l 8 -n wider --type raid5_ls -i 2 -I 4k hg
lvcreate -q -y -Zn -Wn -l 6 -n taken --type raid1 -m 1 hg
in_sync hg/wider; in_sync hg/taken; fill hg/wider 1; fill hg/taken 2
lvconvert -q -y --stripes 3 hg/wider || true
lvconvert -q -y --type raid5_n hg/taken || true
for n in 1 2 3 4 5 6 7 8; do dmsetup status hg-wider | grep -q "idle" && break; sleep 1; done
sleep 1; sync
sha256sum /dev/hg/wider /dev/hg/taken
put /dev/hg/wider 1 512 0
dmsetup status; dmsetup table | grep raid
lvs -a -o name,segtype,size,reshape_len,data_offset,devices hg
vgchange -q -an hg
G
  pack reshape 4
}

for name in "${@:-raid stale thin cache snapshot reshape}"; do
  for part in $name; do
    rm -f "$work"/pv*
    "make_$part"
  done
done
