#!/bin/bash
# Runs every check that a change must pass. Installs the judges first where it may (root, Debian); without them
# the tests that need one say "skipped".
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(btrfs-progs bzip2 cpio cryptsetup-bin dosfstools dracut-core e2fsprogs fdisk fuse3 gdisk genisoimage grub-common grub-efi-amd64-bin grub-emu grub-pc-bin initramfs-tools-core kmod lvm2 lz4 mdadm mtools ntfs-3g qemu-utils squashfs-tools systemd xfsprogs xorriso xz-utils zstd)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing: ${missing[*]}"
    (apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}") \
      >/dev/null || echo "could not install all of: ${missing[*]}; what needs them is skipped"
  else
    echo "not installed: ${missing[*]}; what needs them is skipped (apt-get install ${missing[*]})"
  fi
fi

cargo fmt --all -- --check
cargo clippy --workspace --all-targets --locked -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet
cargo test --workspace --locked
