#!/bin/bash
# Runs a fuzz target for a while: scripts/fuzz.sh [TARGET] [SECONDS]. Needs `cargo install cargo-fuzz` and g++.
# Starts from small images of every format that qemu-img makes; findings land in fuzz/artifacts.
set -euo pipefail
target=${1:-image}
seconds=${2:-300}
cd "$(dirname "$0")/../fuzz"
corpus=corpus/$target
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$corpus"
if [ "$target" = image ]; then
  # The order of image::FORMATS; the target's first byte is an index into it.
  number=0
  for format in $(sed -n '/^pub static FORMATS/,/;/p' ../crates/image/src/lib.rs | grep -o '&[a-z0-9]*::' | tr -d '&:'); do
    byte=$(printf '\\x%02x' "$number")
    name=$format
    [ "$format" = vhd ] && name=vpc
    if qemu-img create -q -f "$name" "$work/seed" 1M 2>/dev/null; then
      qemu-io -f "$name" -c 'write -P 7 0 3k' -c 'write -P 9 700k 1k' "$work/seed" >/dev/null 2>&1 || true
      { printf "$byte"; head -c 3000000 "$work/seed"; } >"$corpus/$format"
      rm -f "$work/seed"
    fi
    number=$((number + 1))
  done
fi
if [ "$target" = md ]; then
  # Superblocks of the test images' members, as the target wants them.
  for toml in ../test-images/volume/md-*.toml; do
    zstd -dqc --long=27 "${toml%.toml}.zst" >"$work/members"
    sed -n 's/^\([^ ]*\) = { first = \([0-9]*\), members = \[\(.*\)\].*/\1 \2 \3/p' "$toml" |
      while read -r name first sizes; do
        number=$first
        : >"$corpus/$name"
        for size in ${sizes//,/}; do
          place=7 at=4096
          case $name in
            *-090 | *-0.90) place=4 at=$((size / 65536 * 65536 - 65536)) ;;
            *-10 | *-10-*) place=5 at=$((size - 8192)) ;;
            *-11 | *-11-*) place=6 at=0 ;;
          esac
          printf "\\x0$place\\x0$((size / 65536 - 1))" >>"$corpus/$name"
          dd if="$work/members" bs=512 skip=$((number * 1024 + at / 512)) count=8 status=none >>"$corpus/$name"
          number=$((number + 1))
        done
      done
  done
fi
if [ "$target" = ntfs ]; then
  zstd -dq ../test-images/filesystem/ntfs-512.img.zst -o "$work/image"
  export NTFS_IMAGE=$work/image
fi
if [ "$target" = ext4 ]; then
  # Without checksums over metadata, which would stop nearly every change.
  mkdir "$work/tree"
  cp -r fuzz_targets "$work/tree/dir"
  head -c 40000 /dev/urandom >"$work/tree/file"
  ln -s "$(printf 'b%.0s' {1..90})" "$work/tree/slow"
  options=inline_data,ea_inode,^resize_inode,^has_journal,^metadata_csum
  mke2fs -q -F -t ext4 -b 1024 -N 64 -O "$options" -d "$work/tree" "$work/image" 1M
  export EXT4_IMAGE=$work/image
  printf '\0' >"$corpus/nothing"
  # Sectors of superblock, descriptors and inode table, as pieces.
  python3 - "$work/image" "$corpus/pieces" <<'P'
import struct, sys
image, out = open(sys.argv[1], "rb").read(), open(sys.argv[2], "wb")
out.write(b"\3")
for place in range(64, 2048):
    line = image[place * 16:place * 16 + 16]
    if any(line):
        out.write(struct.pack("<H", place) + line)
P
fi
if [ "$target" = partitions ]; then
  # Small disks of both kinds; the target's first byte chooses the sector size.
  truncate -s 256K "$work/gpt" "$work/mbr"
  sgdisk -n1:64:+32K -n2:0:0 -t1:ef02 "$work/gpt" >/dev/null
  printf '64,64,83\n128,300,5\n192,64,83\n300,64,8e\n' | sfdisk -q -X dos "$work/mbr"
  for kind in gpt mbr; do
    { printf '\0'; cat "$work/$kind"; } >"$corpus/$kind"
  done
fi
if [ "$target" = lvm2 ]; then
  # Texts with what their first extents hold, and whole physical volumes.
  for name in raid stale thin cache-back cache-vol snapshot history; do
    zstd -qdc "../test-images/volume/lvm-$name.zst" >"$work/image"
    { printf '\x03'; head -c 300000 "$work/image"; } >"$corpus/$name-whole"
    python3 - "$work/image" "$corpus/$name-text" <<'P'
import struct, sys
image = open(sys.argv[1], "rb").read()
offset, size = struct.unpack_from("<QQ", image, 4096 + 40)
start = 4096 + offset
text = image[start : start + size]
middle = len(image) // 2
open(sys.argv[2], "wb").write(b"\x02" + text + image[middle + 384 * 512 :][:400000])
P
  done
fi
if [ "$target" = luks ]; then
  for name in luks1-essiv luks2-argon2id-4096 luks2-cbc; do
    zstd -qdc "../test-images/volume/$name.zst" >"$work/image"
    { printf '\x03'; head -c 300000 "$work/image"; } >"$corpus/$name"
  done
fi
if [ "$target" = xfs ]; then
  # Sectors of the dirty test images; empty records in the log are left out.
  for image in ../test-images/filesystem/xfs-log-*.zst; do
    zstd -dqcf "$image" >"$work/image"
    python3 - "$work/image" "$corpus/$(basename "$image" .img.zst)" <<'P'
import struct, sys
image, out = open(sys.argv[1], "rb").read(), open(sys.argv[2], "wb")
out.write(b"\3")
for number in range(min(len(image) // 512, 65536)):
    sector = image[number * 512:number * 512 + 512]
    is_empty_record = sector[:4] == b"\xfe\xed\xba\xbe" and sector[12:16] == bytes(4)
    if any(sector) and not is_empty_record:
        out.write(struct.pack(">H", number) + sector)
P
  done
fi
if [ "$target" = fat ]; then
  for options in "-F 12 -s 4" "-F 16 -s 1" "-F 32 -s 1"; do
    truncate -s 4M "$work/image"
    # shellcheck disable=SC2086
    mkfs.fat $options "$work/image" >/dev/null
    mcopy -i "$work/image" -Q -s fuzz_targets ::/ 2>/dev/null || true
    head -c 600000 "$work/image" >"$corpus/${options//[- ]/}"
    rm "$work/image"
  done
fi
if [ "$target" = readonly ]; then
  # Small images of every compression and every kind of names; the empty system area of discs is left out.
  for options in "-comp gzip -noI" "-comp gzip" "-comp xz" "-comp lz4" "-comp zstd"; do
    # shellcheck disable=SC2086
    mksquashfs fuzz_targets "$corpus/${options//[- ]/}" -noappend -quiet -no-progress -b 4096 $options >/dev/null
  done
  for options in "-R" "-J" "-R -J" "-l"; do
    # shellcheck disable=SC2086
    genisoimage -quiet $options -o "$work/image" fuzz_targets
    tail -c +32769 "$work/image" >"$corpus/disc${options//[- ]/}"
    rm -f "$work/image"
  done
fi
if [ "$target" = grub_cfg ]; then
  for sample in debian rhel9; do
    { printf '\x08'; cat "../crates/boot/tests/grub/$sample.cfg"; } >"$corpus/$sample"
  done
fi
# No sanitizer: the code is safe Rust, and what counts are panics, hangs and memory.
cargo fuzz run --fuzz-dir . -s none "$target" "$corpus" -- -max_total_time="$seconds" -timeout=5 -rss_limit_mb=1024 -max_len=3000001
