#!/bin/sh
# Compares crates/filesystem-ext4 with the kernel and e2fsck: case, judge, verdict. Needs root (loop mounts).
#   scripts/oracles/ext4.sh read [CASE…]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
lab=${LAB:-$(mktemp -d /tmp/ext4-oracle.XXXXXX)}
list=${CARGO_TARGET_DIR:-$here/../../target}/release/examples/list
mkdir -p "$lab/mnt"
trap 'mountpoint -q "$lab/mnt" && umount "$lab/mnt"; [ -n "${LAB:-}" ] || rm -rf "$lab"' EXIT

cases() {
    cat <<-'END'
	ext2|-t ext2
	ext3|-t ext3
	ext4|-t ext4
	ext4-upstream|-t ext4 -O metadata_csum,64bit,metadata_csum_seed,orphan_file
	1k-blocks|-t ext4 -b 1024
	ext2-1k|-t ext2 -b 1024
	ext3-1k|-t ext3 -b 1024
	no-64bit|-t ext4 -O ^64bit
	uninit_bg|-t ext4 -O ^metadata_csum,uninit_bg
	meta_bg|-t ext4 -b 1024 -O meta_bg,^resize_inode
	inline_data|-t ext4 -O inline_data
	inline_data-1k|-t ext4 -b 1024 -I 512 -O inline_data
	bigalloc|-t ext4 -O bigalloc -C 16384
	bigalloc-1k|-t ext4 -b 1024 -O bigalloc -C 8192
	128-byte-inodes|-t ext4 -I 128
	large_dir|-t ext4 -O large_dir
	ea_inode|-t ext4 -O ea_inode
	ea_inode-inline|-t ext4 -O ea_inode,inline_data
	no-journal|-t ext4 -O ^has_journal
	sparse_super2|-t ext4 -O sparse_super2
	quota|-t ext4 -O quota,project
	fast_commit|-t ext4 -O fast_commit
	encrypt-verity|-t ext4 -O encrypt,verity
	casefold|-t ext4 -O casefold -E encoding=utf8
	END
}

verdict() { printf '%-18s %-28s %s\n' "$1" "$2" "$3"; }

# make NAME ARGS: an image that the kernel has filled, in $lab/NAME.img.
make() {
    image=$lab/$1.img
    rm -f "$image"
    # shellcheck disable=SC2086
    mke2fs -q -F $2 "$image" 400M 2>"$lab/$1.mkfs" || { verdict "$1" mke2fs "skipped: $(head -1 "$lab/$1.mkfs")"; return 1; }
    mount -o loop "$image" "$lab/mnt" 2>"$lab/$1.mount" || { verdict "$1" kernel "skipped: cannot mount"; return 1; }
    python3 "$here/make-tree.py" "$lab/mnt" large 2>"$lab/$1.notes"
    umount "$lab/mnt"
}

# compare NAME IMAGE JUDGE [--replay]: our listing against the kernel's.
compare() {
    mount -o loop,ro "$2" "$lab/mnt"
    python3 "$here/list-mount.py" "$lab/mnt" >"$lab/$1.kernel"
    umount "$lab/mnt"
    "$list" ${4:-} "$2" >"$lab/$1.ours" || true
    if diff "$lab/$1.kernel" "$lab/$1.ours" >"$lab/$1.diff"; then
        verdict "$1" "$3" "same, $(wc -l <"$lab/$1.kernel") files"
    else
        verdict "$1" "$3" "DIFFERS in $(grep -c '^[<>]' "$lab/$1.diff") lines: $lab/$1.diff"
        failed=1
    fi
}

read_case() {
    make "$1" "$2" || return 0
    compare "$1" "$lab/$1.img" "kernel listing"
    rm -f "$lab/$1.img"
}

failed=0
stage=${1:-read}
[ $# -eq 0 ] || shift
chosen=" $* "
cases >"$lab/cases"
while IFS='|' read -r name args; do
    if [ "$chosen" = "  " ] || [ "${chosen#* "$name" }" != "$chosen" ]; then
        "${stage}_case" "$name" "$args"
    fi
done <"$lab/cases"
exit "$failed"
