#!/bin/sh
# Compares crates/filesystem-ext4 with the kernel and e2fsck: case, judge, verdict. Needs root (loop mounts).
#   scripts/oracles/ext4.sh read|replay|fast|write [CASE…]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
lab=${LAB:-$(mktemp -d /tmp/ext4-oracle.XXXXXX)}
examples=${CARGO_TARGET_DIR:-$here/../../target}/release/examples
list=$examples/list
edit=$examples/edit
mkdir -p "$lab/mnt"
trap 'mountpoint -q "$lab/mnt" && umount "$lab/mnt"; [ -n "${LAB:-}" ] || rm -rf "$lab"' EXIT

cases() {
    cat <<-'END'
	ext2|-t ext2 -b 4096
	ext3|-t ext3 -b 4096
	ext4|-t ext4 -b 4096
	ext4-upstream|-t ext4 -b 4096 -O metadata_csum,64bit,metadata_csum_seed,orphan_file
	1k-blocks|-t ext4 -b 1024
	ext2-1k|-t ext2 -b 1024
	ext3-1k|-t ext3 -b 1024
	no-64bit|-t ext4 -b 4096 -O ^64bit
	uninit_bg|-t ext4 -b 4096 -O ^metadata_csum,uninit_bg
	meta_bg|-t ext4 -b 1024 -O meta_bg,^resize_inode
	inline_data|-t ext4 -b 4096 -O inline_data
	inline_data-1k|-t ext4 -b 1024 -I 512 -O inline_data
	bigalloc|-t ext4 -b 4096 -O bigalloc -C 16384
	bigalloc-1k|-t ext4 -b 1024 -O bigalloc -C 8192
	128-byte-inodes|-t ext4 -b 4096 -I 128
	large_dir|-t ext4 -b 4096 -O large_dir
	ea_inode|-t ext4 -b 4096 -O ea_inode
	ea_inode-inline|-t ext4 -b 4096 -O ea_inode,inline_data
	no-journal|-t ext4 -b 4096 -O ^has_journal
	sparse_super2|-t ext4 -b 4096 -O sparse_super2
	quota|-t ext4 -b 4096 -O quota,project
	fast_commit|-t ext4 -b 4096 -O fast_commit
	encrypt-verity|-t ext4 -b 4096 -O encrypt,verity
	casefold|-t ext4 -b 4096 -O casefold -E encoding=utf8
	mmp|-t ext4 -b 4096 -O mmp
	no-flex_bg|-t ext4 -b 1024 -O ^flex_bg
	no-filetype|-t ext2 -b 4096 -O ^filetype
	sparse_super-none|-t ext4 -b 1024 -O ^sparse_super,^resize_inode
	sparse_super2-1k|-t ext4 -b 1024 -O sparse_super2
	64k-blocks|-t ext4 -b 65536 -N 4096
	stable_inodes|-t ext4 -b 4096 -O stable_inodes,encrypt
	END
}

verdict() { printf '%-18s %-28s %s\n' "$1" "$2" "$3"; }

# A recovery that is refused: refused CASE JUDGE WHAT-WAS-SAID. What docs/status.md names is explained.
refused() {
    case $3 in
    *'fast commit'*'inline data'* | *'fast commit'*bigalloc* | *'fast commit'*casefold* | *'fast commit'*encrypt*)
        verdict "$1" "$2" "explained: refused by name: $3" ;;
    *)
        verdict "$1" "$2" "REFUSED: $3"
        failed=1 ;;
    esac
}

# make NAME ARGS: an image that the kernel has filled, in $lab/NAME.img.
make() {
    image=$lab/$1.img
    rm -f "$image"
    # shellcheck disable=SC2086
    mke2fs -q -F $2 "$image" 400M >/dev/null 2>"$lab/$1.mkfs" || { verdict "$1" mke2fs "skipped: $(head -1 "$lab/$1.mkfs")"; return 1; }
    mount -o loop "$image" "$lab/mnt" 2>"$lab/$1.mount" || { verdict "$1" kernel "skipped: cannot mount"; return 1; }
    python3 "$here/make-tree.py" "$lab/mnt" large 2>"$lab/$1.notes"
    umount "$lab/mnt"
}

drop_space() { sed -i 's/\t[0-9]*\t\([-0-9]*\.[0-9]*\t\)/\t-\t\1/' "$@"; }

# compare NAME IMAGE JUDGE [--replay]: our listing against the kernel's.
compare() {
    mount -o loop,ro "$2" "$lab/mnt"
    python3 "$here/list-mount.py" "$lab/mnt" >"$lab/$1.kernel"
    umount "$lab/mnt"
    "$list" ${4:-} "$2" >"$lab/$1.ours" || true
    # stat(2) of a file with inline data reports space that it does not occupy.
    case $1 in
    *inline*) drop_space "$lab/$1.kernel" "$lab/$1.ours" ;;
    esac
    if diff "$lab/$1.kernel" "$lab/$1.ours" >"$lab/$1.diff"; then
        verdict "$1" "$3" "same, $(wc -l <"$lab/$1.kernel") files"
    else
        verdict "$1" "$3" "DIFFERS in $(grep -c '^[<>]' "$lab/$1.diff") lines: $lab/$1.diff"
        failed=1
    fi
}

# What this kernel cannot mount is made from a tree on the host, and compared with that tree: paths, kinds, modes,
# owners, contents, targets, attributes. mke2fs writes no sockets, and gives directories sizes of their own.
host_case() {
    tree=$lab/tree
    if [ ! -d "$tree" ]; then
        mkdir "$tree"
        python3 "$here/make-tree.py" "$tree" 2>"$lab/tree.notes"
        rm -f "$tree/nodes/socket" "$tree/files/huge"
        python3 "$here/list-mount.py" "$tree" >"$lab/tree.list"
    fi
    rm -f "$lab/$1.img"
    # shellcheck disable=SC2086
    mke2fs -q -F $2 -d "$tree" "$lab/$1.img" 1G >/dev/null 2>"$lab/$1.mkfs" || { verdict "$1" mke2fs "skipped: $(head -1 "$lab/$1.mkfs")"; return 0; }
    "$list" "$lab/$1.img" | grep -v '^/lost+found' >"$lab/$1.ours" || true
    for side in "$lab/tree.list" "$lab/$1.ours"; do
        # Path, kind and mode, owners, size and content of files, attributes. mke2fs 1.47.0 keeps 32 bits of a time.
        awk -F'\t' -v OFS='\t' '{ $5 = "-"; $7 = "-"; sub(/\..*/, "", $8); $8 %= 4294967296; if ($8 >= 2147483648) $8 -= 4294967296; if ($2 ~ /^d/) $6 = $8 = "-"; print }' "$side" |
            grep -v '^\t' | LC_ALL=C sort >"$side.kept"
    done
    if diff "$lab/tree.list.kept" "$lab/$1.ours.kept" >"$lab/$1.diff"; then
        verdict "$1" "tree given to mke2fs -d" "same, $(wc -l <"$lab/$1.ours.kept") files"
    else
        verdict "$1" "tree given to mke2fs -d" "DIFFERS in $(grep -c '^[<>]' "$lab/$1.diff") lines: $lab/$1.diff"
        failed=1
    fi
    rm -f "$lab/$1.img"
}

# An encrypted directory, with the key forgotten again: the kernel shows its files under other names, so they are
# compared by inode, kind and size; names are there in the same number, and contents are refused.
encrypt_case() {
    image=$lab/encrypted.img
    rm -f "$image"
    mke2fs -q -F -t ext4 -b 4096 -O encrypt "$image" 60M >/dev/null 2>&1
    mount -o loop "$image" "$lab/mnt" 2>/dev/null || { verdict encrypted kernel "skipped: cannot mount"; return 0; }
    if ! python3 "$here/encrypt-tree.py" "$lab/mnt" 2>"$lab/encrypted.notes"; then
        verdict encrypted kernel "skipped: $(tail -1 "$lab/encrypted.notes")"
        umount "$lab/mnt"
        return 0
    fi
    umount "$lab/mnt"
    mount -o loop,ro "$image" "$lab/mnt"
    (cd "$lab/mnt" && find secret -mindepth 1 -printf '%y %s\n' | sort) >"$lab/encrypted.kernel"
    umount "$lab/mnt"
    "$list" "$image" >"$lab/encrypted.list" || true
    count=$(grep -c '^/secret/.*encrypted content' "$lab/encrypted.list" || true)
    names=$(grep -c '^/secret/' "$lab/encrypted.list" || true)
    verdict encrypted "kernel without the key" "$(wc -l <"$lab/encrypted.kernel") names, here $names, of which $count contents are refused by name"
    [ "$names" -eq "$(wc -l <"$lab/encrypted.kernel")" ] || failed=1
    rm -f "$image"
}

read_case() {
    make "$1" "$2" >"$lab/$1.made" || { host_case "$1" "$2"; return 0; }
    compare "$1" "$lab/$1.img" "kernel listing"
    rm -f "$lab/$1.img"
}

# Judges an image with e2fsck: check NAME IMAGE WHAT.
check() {
    if e2fsck -fn "$2" >"$lab/$1.fsck" 2>&1; then
        verdict "$1" "e2fsck -fn after $3" clean
    else
        verdict "$1" "e2fsck -fn after $3" "FAILED: $(grep -v '^Pass\|^e2fsck\|^$' "$lab/$1.fsck" | head -2 | tr '\n' ' ')"
        failed=1
    fi
}

# An image copied from under a mounted file system: its journal is dirty. $1 orphans: and files were deleted
# that a process still has open, which the kernel then deletes at mount and we leave to it.
replay_case() {
    image=$lab/$1.img
    rm -f "$image"
    # shellcheck disable=SC2086
    mke2fs -q -F $2 "$image" 200M >/dev/null 2>"$lab/$1.mkfs" || { verdict "$1" mke2fs skipped; return 0; }
    mount -o loop "$image" "$lab/mnt" 2>"$lab/$1.mount" || { verdict "$1" kernel "skipped: cannot mount"; return 0; }
    python3 "$here/make-tree.py" "$lab/mnt" 2>"$lab/$1.notes"
    sync -f "$lab/mnt"
    # Directories that become file content revoke their blocks; then more than fits into one transaction.
    for round in 1 2 3; do
        mkdir "$lab/mnt/round$round"
        (cd "$lab/mnt/round$round" && seq 1 2000 | xargs touch)
        sync -f "$lab/mnt"
        rm -rf "$lab/mnt/round$round"
        seq 1 200000 >"$lab/mnt/content$round"
        sync -f "$lab/mnt"
    done
    mkdir "$lab/mnt/last"
    (cd "$lab/mnt/last" && seq 1 500 | xargs touch)
    printf 'last words\n' >"$lab/mnt/etc/fstab"
    sync -f "$lab/mnt"
    seq 1 1000 >"$lab/mnt/not-synced"
    cp --sparse=always "$image" "$lab/$1.dirty"
    umount "$lab/mnt"
    cp --sparse=always "$lab/$1.dirty" "$image"
    if ! said=$("$edit" replay "$image" 2>&1); then
        refused "$1" replay "$said"
        rm -f "$image" "$lab/$1.dirty"
        return 0
    fi
    check "$1" "$image" "replay of $said"
    # The kernel recovers its own copy.
    mount -o loop "$lab/$1.dirty" "$lab/mnt"
    umount "$lab/mnt"
    mount -o loop,ro "$lab/$1.dirty" "$lab/mnt"
    python3 "$here/list-mount.py" "$lab/mnt" >"$lab/$1.recovered"
    umount "$lab/mnt"
    case $1 in
    *inline*) drop_space "$lab/$1.recovered" ;;
    esac
    compare "$1" "$image" "kernel listing after replay"
    if diff "$lab/$1.recovered" "$lab/$1.kernel" >"$lab/$1.diff"; then
        verdict "$1" "kernel's own recovery" "same, $(wc -l <"$lab/$1.kernel") files"
    else
        verdict "$1" "kernel's own recovery" "DIFFERS: $lab/$1.diff"
        failed=1
    fi
    rm -f "$image" "$lab/$1.dirty"
}

# What counts in a listing after fast commits. The kernel sets the time of a directory that it repeats a change in
# to that of the recovery, and leaves counts that e2fsck finds wrong: links of directories, space of directories
# and of files with an attribute block. A map may be packed in more ways than one, so e2fsck judges space alone.
only_what_is_kept() { sed -i -E "/\td[0-7]{4}\t/ s/^([^\t]*\td[0-7]*\t[0-9]*\t[0-9]*)\t[0-9]*\t[0-9]*\t[0-9]*\t[-0-9.]*/\1\t-/" "$@"; drop_space "$@"; }

# Small changes, each with an fsync, and then no more power: what the kernel recovers, and what we do.
fast_case() {
    case $2 in
    *ext4*) ;;
    *) return 0 ;;
    esac
    case $2 in
    *^has_journal* | *bigalloc*) return 0 ;;
    esac
    image=$lab/$1.img
    for seed in ${SEEDS:-1 2 3}; do
        rm -f "$image"
        # shellcheck disable=SC2086
        mke2fs -q -F $2 -O fast_commit "$image" 100M >/dev/null 2>"$lab/$1.mkfs" || { verdict "$1" mke2fs skipped; return 0; }
        mount -o loop "$image" "$lab/mnt" 2>"$lab/$1.mount" || { verdict "$1" kernel "skipped: cannot mount"; return 0; }
        python3 "$here/fast-commit.py" prepare "$lab/mnt"
        sync -f "$lab/mnt"
        python3 "$here/fast-commit.py" change "$lab/mnt" "$seed" "${STEPS:-60}"
        umount "$lab/mnt"
        cp --sparse=always "$image" "$lab/$1.dirty"
        if ! said=$("$edit" replay "$image" 2>&1); then
            refused "$1" "replay, seed $seed" "$said"
            continue
        fi
        check "$1" "$image" "$said, seed $seed"
        "$list" "$image" >"$lab/$1.ours" || true
        if ! mount -o loop "$lab/$1.dirty" "$lab/mnt" 2>/dev/null; then
            verdict "$1" "kernel's own recovery" "the kernel refuses"
            continue
        fi
        python3 "$here/list-mount.py" "$lab/mnt" >"$lab/$1.kernel"
        umount "$lab/mnt"
        only_what_is_kept "$lab/$1.kernel" "$lab/$1.ours"
        if diff "$lab/$1.kernel" "$lab/$1.ours" >"$lab/$1.diff"; then
            verdict "$1" "kernel's own recovery" "same, $(wc -l <"$lab/$1.kernel") files, seed $seed"
        else
            verdict "$1" "kernel's own recovery" "DIFFERS: $lab/$1.diff, seed $seed"
            failed=1
            cp "$lab/$1.dirty" "$lab/$1.dirty-$seed"
            cp "$lab/$1.diff" "$lab/$1.diff-$seed"
        fi
    done
    rm -f "$image" "$lab/$1.dirty"
}

# Files replaced in an image that the kernel filled: e2fsck after each, the kernel's content at the end.
write_case() {
    make "$1" "$2" || return 0
    image=$lab/$1.img
    "$list" "$image" >"$lab/$1.before" || true
    done=
    seed=0
    for target in etc/fstab files/0 files/61 files/157 files/4097 files/300000 files/5242880 files/sparse \
        files/fragmented files/reserved xattrs/file; do
        for size in 1000 5000 12 700000 0 155 3000000 4096; do
            seed=$((seed + 1))
            python3 -c "import random, sys; sys.stdout.buffer.write(random.Random($seed).randbytes($size))" >"$lab/new"
            if ! said=$("$edit" replace "$image" "/$target" "$lab/new" 2>&1); then
                case $1 in
                bigalloc*)
                    verdict "$1" "replace $target, $size" "explained: refused by name: $said"
                    rm -f "$image"
                    return 0
                    ;;
                esac
                verdict "$1" "replace $target, $size" "REFUSED: $said"
                failed=1
                continue
            fi
            e2fsck -fn "$image" >"$lab/$1.fsck" 2>&1 || { check "$1" "$image" "$target, $size"; }
            done="$done x"
        done
        echo "$(sha256sum <"$lab/new" | cut -d' ' -f1)" >"$lab/sum"
        mount -o loop,ro "$image" "$lab/mnt"
        if ! sha256sum <"$lab/mnt/$target" | cut -d' ' -f1 | cmp -s - "$lab/sum"; then
            verdict "$1" "kernel's content of $target" DIFFERS
            failed=1
        fi
        umount "$lab/mnt"
    done
    verdict "$1" "e2fsck -fn after each" "$(echo "$done" | wc -w) replacements"
    compare "$1" "$image" "kernel listing after writing"
    # The kernel goes on writing where we stopped.
    mount -o loop "$image" "$lab/mnt"
    cp -r "$lab/mnt/files" "$lab/mnt/more" 2>/dev/null || true
    rm -rf "$lab/mnt/files" "$lab/mnt/dirs/3000"
    umount "$lab/mnt"
    check "$1" "$image" "more writing by the kernel"
    rm -f "$image"
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
if [ "$stage" = read ] && [ "$chosen" = "  " ]; then
    encrypt_case
fi
exit "$failed"
