#!/bin/bash
# Makes test-images/guest/btrfs-subvolumes.raw.zst: a system in the subvolumes @ and @home, as Debian and Ubuntu lay it out,
# a snapshot of @, and nothing in the top level, which is the default. Needs root for a loop mount.
set -euo pipefail
out=$(dirname "$0")/../../test-images/guest
work=$(mktemp -d)
trap 'mountpoint -q "$work/mnt" && umount "$work/mnt"; rm -rf "$work"' EXIT
mkdir "$work/mnt"
truncate -s 24M "$work/img"
mkfs.btrfs -q --mixed -L system -U 88888888-aaaa-4bbb-8ccc-000000000008 "$work/img"
mount -o loop "$work/img" "$work/mnt"
btrfs subvolume create "$work/mnt/@"
btrfs subvolume create "$work/mnt/@home"
mkdir -p "$work/mnt/@/etc" "$work/mnt/@/usr/bin" "$work/mnt/@/home" "$work/mnt/@home/user"
echo 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"' >"$work/mnt/@/etc/os-release"
cat >"$work/mnt/@/etc/fstab" <<'F'
UUID=88888888-aaaa-4bbb-8ccc-000000000008 / btrfs subvol=@ 0 0
UUID=88888888-aaaa-4bbb-8ccc-000000000008 /home btrfs subvol=/@home,nofail 0 0
F
echo 'of the user' >"$work/mnt/@home/user/file"
btrfs subvolume snapshot "$work/mnt/@" "$work/mnt/@before"
umount "$work/mnt"
zstd -q -19 -f "$work/img" -o "$out/btrfs-subvolumes.raw.zst"
{
  echo "# A system in btrfs subvolumes, with a snapshot of itself."
  echo 'recipe = "scripts/images/btrfs-subvolumes.sh"'
  echo "tools = \"$(mkfs.btrfs --version | cut -d' ' -f1-5), Linux $(uname -r)\""
  echo "sha256 = \"$(sha256sum <"$work/img" | cut -d' ' -f1)\""
} >"$out/btrfs-subvolumes.toml"
ls -l "$out"/btrfs-subvolumes.*
