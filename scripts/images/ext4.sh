#!/bin/sh
# Makes test-images/filesystem/ext4-fast-commit.img.zst: small changes that are only in the fast commits of the
# journal, with what the kernel shows after its own recovery. Needs root.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$here/../../test-images/filesystem
work=$(mktemp -d)
trap 'mountpoint -q "$work/mnt" && umount "$work/mnt"; rm -rf "$work"' EXIT
mkdir "$work/mnt"
mke2fs -q -F -t ext4 -b 1024 -I 256 -N 400 -J size=4 -O fast_commit,^resize_inode "$work/img" 14M
mount -o loop "$work/img" "$work/mnt"
mkdir "$work/mnt/small" "$work/mnt/middle" "$work/mnt/wide"
for number in 1 2 3 4 5 6 7 8; do
    head -c $((number * 700)) /dev/zero | tr '\0' "$number" >"$work/mnt/small/old-$number"
done
for number in $(seq 1 60); do
    : >"$work/mnt/middle/old-$number-$(printf 'n%.0s' $(seq 1 30))"
done
cp "$work/mnt/small/"old-* "$work/mnt/wide"
sync -f "$work/mnt"
export PLAIN=1 KINDS="create append overwrite sparse truncate rename replace unlink link reserve mkdir rmdir mode"
python3 "$here/../oracles/fast-commit.py" change "$work/mnt" 5 40
umount "$work/mnt"
cp "$work/img" "$work/dirty"
mount -o loop "$work/dirty" "$work/mnt"
# What stays the same: path, mode, owners, then size and hash of files.
python3 "$here/../oracles/list-mount.py" "$work/mnt" |
    awk -F'\t' -v OFS='\t' '{ if ($2 ~ /^d/) print $1, $2, $3, $4; else print $1, $2, $3, $4, $5, $6, $9 }' >"$work/list"
umount "$work/mnt"
zstd -q -19 -f "$work/img" -o "$out/ext4-fast-commit.img.zst"
{
    echo '# Created, grown, cut, renamed, linked and deleted files and folders, all of it only in fast commits.'
    echo 'recipe = "scripts/images/ext4.sh"'
    echo "tools = \"$(mke2fs -V 2>&1 | head -1), Linux $(uname -r)\""
    echo "sha256 = \"$(sha256sum <"$work/img" | cut -d' ' -f1)\""
    echo '# As the kernel shows it after its recovery: path, mode, owners; of files links, size and SHA-256 too.'
    echo "tree = '''"
    cat "$work/list"
    echo "'''"
} >"$out/ext4-fast-commit.img.toml"
ls -l "$out/ext4-fast-commit.img.zst"
