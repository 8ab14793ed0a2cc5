#!/bin/bash
# Makes test-images/volume/luks-*.zst: encrypted devices whose data a kernel's dm-crypt wrote (scripts/oracles/in-guest.py,
# for there may be no device-mapper here). Every one holds the pattern of seed 9 over its first 64 KiB of data; all
# passphrases are "correct horse", but that of the second slot of luks2-cbc, which is "battery staple".
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$PWD/test-images/volume
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
names=(luks1-essiv luks2-argon2id-4096 luks2-cbc)
scripts/images/pattern.py 9 128 >"$work/pattern"
for name in "${names[@]}"; do truncate -s 4M "$work/$name"; done
cat >"$work/script" <<'S'
set -e
printf 'correct horse' >/tmp/key
printf 'battery staple' >/tmp/second
cheap="--pbkdf-memory 64 --pbkdf-force-iterations 4 --pbkdf-parallel 2"
small="--luks2-metadata-size 16k --luks2-keyslots-size 512k --offset 2048"
cryptsetup luksFormat -q --type luks1 --cipher aes-cbc-essiv:sha256 --key-size 256 --hash sha1 --pbkdf-force-iterations 1000 \
  --uuid 11111111-1111-4111-8111-111111111111 /dev/vda /tmp/key
cryptsetup luksFormat -q --type luks2 --cipher aes-xts-plain64 --key-size 256 --sector-size 4096 --pbkdf argon2id $cheap $small \
  --label encrypted --subsystem guests --uuid 22222222-2222-4222-8222-222222222222 /dev/vdb /tmp/key
cryptsetup luksFormat -q --type luks2 --cipher aes-cbc-essiv:sha256 --key-size 256 --sector-size 512 --pbkdf argon2i $cheap $small \
  --uuid 33333333-3333-4333-8333-333333333333 /dev/vdc /tmp/key
cryptsetup luksAddKey -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /tmp/key /dev/vdc /tmp/second
for disk in vda vdb vdc; do
  cryptsetup open --key-file /tmp/key /dev/$disk opened
  dd if=/dev/vdd of=/dev/mapper/opened bs=64k count=1 conv=fsync 2>/dev/null
  cryptsetup close opened
  cryptsetup luksDump /dev/$disk
done
S
disks=()
for name in "${names[@]}"; do disks+=(--disk "$work/$name:raw"); done
scripts/oracles/in-guest.py "${disks[@]}" --disk "$work/pattern:raw" "$work/script" >"$work/log" || { cat "$work/log"; exit 1; }
for name in "${names[@]}"; do
  offset=$(cryptsetup luksDump "$work/$name" | sed -n 's/^\s*\(offset: \([0-9]*\) \[bytes\]\|Payload offset:\s*\([0-9]*\)\)/\2 \3/p' | head -1 |
    awk '{ print ($1 > 4096 ? $1 : $1 * 512) }')
  truncate -s $((offset + 65536)) "$work/$name"
  # cryptsetup fills the areas of slots that were never used with noise, which would only cost room here.
  case $name in luks1-essiv) used=135168 ;; luks2-argon2id-4096) used=163840 ;; luks2-cbc) used=294912 ;; esac
  dd if=/dev/zero of="$work/$name" bs=4096 seek=$((used / 4096)) count=$(((offset - used) / 4096)) conv=notrunc status=none
  zstd -q -19 -f "$work/$name" -o "$out/$name.zst"
  {
    echo "# Made by scripts/images/luks.sh; see there."
    echo "sha256 = \"$(sha256sum <"$work/$name" | cut -d' ' -f1)\""
    echo "tools = \"$(cryptsetup --version | cut -d' ' -f1,2), Linux $(basename /boot/vmlinuz-* | sed 's/vmlinuz-//' | sort | tail -1)\""
    echo "contents = \"$name: the pattern of seed 9 from byte $offset on, 128 sectors of 512 bytes\""
  } >"$out/$name.toml"
done
ls -l "$out"/luks*
