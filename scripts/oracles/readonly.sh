#!/bin/bash
# Compares our readers of read-only formats with others: squashfs with the kernel's mount, ISO 9660 with bsdtar, xorriso.
# Needs root for device nodes and loop mounts, squashfs-tools, xorriso, libarchive-tools, python3.
# Prints a table: case, judge, verdict.   usage: readonly.sh [CASE...]
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
work=$(mktemp -d "${TMPDIR:-/tmp}/readonly-oracle.XXXXXX")
unmount() { mountpoint -q "$work/mnt" && umount "$work/mnt"; }
trap 'unmount; rm -rf "$work"' EXIT
mkdir "$work/mnt" "$work/tree"
failed=0

verdict() { # case judge rc [note]
    [ "$3" = 0 ] && local word=ok || { local word=FAIL; failed=1; }
    printf '%-16s %-44s %s%s\n' "$1" "$2" "$word" "${4:+  ($4)}"
}
# Numbers of inodes are each reader's own; sorted by path.
normalize() { awk -F'\t' -v OFS='\t' '{$9="-"}1' | LC_ALL=C sort; }

# A file system of its own, as some attributes fit in few: XFS in a file.
truncate -s 1G "$work/xfs"
mkfs.xfs -q "$work/xfs" && mount -o loop "$work/xfs" "$work/tree" || exit 2
trap 'unmount; umount "$work/tree"; rm -rf "$work"' EXIT
python3 "$here/tree.py" make "$work/tree" || exit 2
rm "$work/tree/files/huge"   # 4 TiB of zeros to read
mksquash() { # options...
    rm -f "$work/image"
    mksquashfs "$work/tree" "$work/image" -noappend -quiet -no-progress "$@" >"$work/err" 2>&1
}
squashfs() { # case options...
    local case=$1
    shift
    mksquash "$@" || { verdict "$case" mksquashfs 1 "$(head -1 "$work/err")"; return; }
    mount -o loop,ro -t squashfs "$work/image" "$work/mnt" || { verdict "$case" "kernel mounts" 1; return; }
    python3 "$here/tree.py" list "$work/mnt" 2>"$work/err" | normalize >"$work/theirs"
    unmount
    "$target/debug/examples/squashfs_tree" "$work/image" 2>"$work/err" | normalize >"$work/ours"
    cmp -s "$work/theirs" "$work/ours" && [ "$(wc -l <"$work/ours")" -gt 19000 ]
    local rc=$?
    verdict "$case" "tree as the kernel shows it" $rc "$(wc -l <"$work/ours") files"
    if [ $rc != 0 ]; then tail -2 "$work/err"; diff "$work/theirs" "$work/ours" | cut -c1-300 | head -6; fi
    grep problem "$work/err"
}
cargo build -q --manifest-path "$root/Cargo.toml" -p guestmend-filesystem-squashfs --example squashfs_tree || exit 2

declare -A options_of=(
    [gzip]="-comp gzip" [xz]="-comp xz" [xz-bcj]="-comp xz -Xbcj x86,arm -b 1M" [lz4]="-comp lz4" [lz4-hc]="-comp lz4 -Xhc"
    [zstd]="-comp zstd" [zstd-22]="-comp zstd -Xcompression-level 22 -b 1M" [blocks-4k]="-b 4096" [blocks-1m]="-b 1M"
    [no-fragments]="-no-fragments" [always-fragments]="-always-use-fragments -b 64K" [stored]="-noI -noD -noF -noX"
    [no-xattrs]="-no-xattrs" [not-exportable]="-no-exports" [no-duplicates]="-no-duplicates" [one-owner]="-all-root"
)
cases=(gzip xz xz-bcj lz4 lz4-hc zstd zstd-22 blocks-4k blocks-1m no-fragments always-fragments stored no-xattrs not-exportable no-duplicates one-owner)
[ $# -gt 0 ] && cases=("$@")
for case in "${cases[@]}"; do
    # shellcheck disable=SC2086 # options are words
    squashfs "$case" ${options_of[$case]}
done
exit $failed
