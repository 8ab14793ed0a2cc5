#!/bin/bash
# FAT as Linux' vfat driver writes and shows it against our reader, in a guest (scripts/oracles/in-guest.py): names, sizes,
# times and contents. Needs root for nothing here, the guest's packages (see there), mkfs.fat, and a built guestmend.
set -uo pipefail
cd "$(dirname "$0")/../.."
# GUESTMEND: a built one.
[ -n "${GUESTMEND:-}" ] || cargo build -q --release || exit 2
tool=${GUESTMEND:-${CARGO_TARGET_DIR:-target}/release/guestmend}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/script" <<'S'
set -e
for disk in vda vdb vdc vdd; do
  mount -t vfat -o utf8 /dev/$disk /mnt
  cd /mnt
  mkdir -p deep/er/and/deep/er/still many
  echo text > "deep/er/and/deep/er/still/Ein langer Name mit Ümlauten.txt"
  echo lower > lower.txt; echo upper > UPPER.TXT; echo mixed > MixedCase.Txt; : > empty
  n=0; while [ $n -lt 600 ]; do echo "content of $n" > "many/file with a name of some length $n"; n=$((n + 1)); done
  # Every second file goes, so that what follows lies in pieces.
  n=0; while [ $n -lt 600 ]; do rm "many/file with a name of some length $n"; n=$((n + 2)); done
  dd if=/dev/urandom of=pieces bs=1k count=300 2>/dev/null
  dd if=/dev/zero of=zeros bs=1k count=100 2>/dev/null
  cd /; umount /mnt; mount -t vfat -o ro,utf8 /dev/$disk /mnt; cd /mnt
  find . -type f | sort | while read -r file; do
    echo "$disk $(stat -c '%s %Y' "$file") $(sha256sum < "$file" | cut -d' ' -f1) $file"
  done
  cd /; umount /mnt
done
S
names=(FAT12 FAT16 FAT32 FAT32-4k)
options=("-F 12 -s 8" "-F 16 -s 2" "-F 32 -s 1" "-F 32 -s 8")
disks=()
for index in 0 1 2 3; do
  case $index in 3) size=300M ;; 2) size=40M ;; *) size=12M ;; esac
  truncate -s $size "$work/$index"
  # shellcheck disable=SC2086
  mkfs.fat ${options[$index]} "$work/$index" >/dev/null || exit 2
  disks+=(--disk "$work/$index:raw")
done
scripts/oracles/in-guest.py --timeout 900 "${disks[@]}" "$work/script" >"$work/kernel" || { tail -5 "$work/kernel"; exit 2; }
failed=0
for index in 0 1 2 3; do
  disk=vd$(printf '%b' "\\x$(printf '%x' $((97 + index)))")
  "$tool" cp-out --volume disk0 "$work/$index" / "$work/out$index" >/dev/null || failed=1
  (cd "$work/out$index" && find . -type f | LC_ALL=C sort | while read -r file; do
    echo "$disk $(stat -c '%s %Y' "$file") $(sha256sum <"$file" | cut -d' ' -f1) $file"
  done) | LC_ALL=C sort >"$work/ours$index"
  grep "^$disk " "$work/kernel" | LC_ALL=C sort >"$work/theirs$index"
  if cmp -s "$work/ours$index" "$work/theirs$index"; then
    printf '%-10s %-40s %s\n' "${names[$index]}" "vfat: names, sizes, times, contents" "ok, $(wc -l <"$work/ours$index") files"
  else
    printf '%-10s %-40s %s\n' "${names[$index]}" "vfat: names, sizes, times, contents" "DIFFERENT"
    diff "$work/theirs$index" "$work/ours$index" | head -6
    failed=1
  fi
done
exit $failed
