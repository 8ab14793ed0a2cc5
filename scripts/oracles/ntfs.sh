#!/bin/bash
# Compares our NTFS reader with ntfs-3g's FUSE mount and its tools.
# Needs root and /dev/fuse, ntfs-3g, python3. Prints a table: case, judge, verdict.
# usage: ntfs.sh [CASE...]
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
work=$(mktemp -d "${TMPDIR:-/tmp}/ntfs-oracle.XXXXXX")
trap 'mountpoint -q "$work/mnt" && umount "$work/mnt"; rm -rf "$work"' EXIT
mkdir "$work/mnt"
cargo build -q --manifest-path "$root/Cargo.toml" -p guestmend-filesystem-ntfs --examples || exit 2
tree=$target/debug/examples/ntfs_tree
image=$work/image
failed=0

verdict() { # case judge rc [note]
    [ "$3" = 0 ] && local word=ok || { local word=FAIL; failed=1; }
    printf '%-12s %-40s %s%s\n' "$1" "$2" "$word" "${4:+  ($4)}"
}
with_mount() { # options command...
    local options=$1 rc
    shift
    ntfs-3g -o "$options,streams_interface=xattr,compression" "$image" "$work/mnt" || return 1
    "$@"
    rc=$?
    umount "$work/mnt"
    return $rc
}
theirs() { with_mount ro python3 "$here/ntfs-tree.py" list "$work/mnt" | LC_ALL=C sort >"$work/theirs"; }
ours() { "$tree" "$image" 2>"$work/err" | LC_ALL=C sort >"$work/ours"; }
same_trees() { # case
    theirs && ours && cmp -s "$work/theirs" "$work/ours"
    verdict "$1" "tree as ntfs-3g shows it" $? "$(wc -l <"$work/ours") files"
    cmp -s "$work/theirs" "$work/ours" || { diff "$work/theirs" "$work/ours" | cut -c1-300 | head -20; tail -3 "$work/err"; }
    ! grep -q ^problem "$work/err"
    verdict "$1" "no problems" $?
}
same_files() { # case: by ntfscat, which is not the mount
    local path wrong=0
    for path in files/size1000003 files/sparse files/holes files/even packed/mixed packed/noise; do
        [ "$(ntfscat -f "$image" "$path" 2>/dev/null | sha256sum | cut -c1-64)" = \
          "$(grep -F "./$path	" "$work/ours" | cut -f11)" ] || wrong=1
    done
    verdict "$1" "contents as ntfscat prints them" $wrong
}
same_names() { # case: by ntfsls
    local path=directories/d1500
    grep -q "^./$path	" "$work/ours" || path=directories/d3000
    ntfsls -f -p "$path" "$image" 2>/dev/null | grep -v '^\.\.\?$' | LC_ALL=C sort >"$work/names"
    grep "^./$path/" "$work/ours" | cut -f1 | sed 's|.*/||' | LC_ALL=C sort | cmp -s - "$work/names"
    verdict "$1" "names as ntfsls prints them" $?
}
identity() { # case
    "$tree" --identity "$image" >"$work/ours.id"
    blkid -p -o export "$image" | sed -n 's/^UUID=//p; s/^TYPE=//p' | LC_ALL=C sort | tr '\n' ' ' >"$work/id"
    cmp -s "$work/id" "$work/ours.id"
    verdict "$1" "UUID and type as blkid prints them" $? "$(cat "$work/ours.id")"
}
state() { # wanted judge
    local said
    said=$("$tree" --state "$image")
    [[ $said == *$1* ]]
    verdict state "$2" $? "$1"
    [[ $said == *$1* ]] || echo "$said"
}

# Every case: what mkntfs is told.
declare -A options=(
    [default]=""
    [512]="-c 512"
    [1k]="-c 1024"
    [2k]="-c 2048"
    [8k]="-c 8192"
    [64k]="-c 65536"
    [2m]="-c 2097152"
    [sector-1k]="-s 1024"
    [sector-2k]="-s 2048 -c 2048"
    [4kn]="-s 4096"
    [4kn-64k]="-s 4096 -c 65536"
    [no-index]="-I"
)
cases=(default 512 1k 2k 8k 64k 2m sector-1k sector-2k 4kn 4kn-64k no-index state)
[ $# -gt 0 ] && cases=("$@")
for case in "${cases[@]}"; do
    rm -f "$image"
    if [ "$case" = state ]; then
        truncate -s 64M "$image"
        mkntfs -q -Q -F "$image" >/dev/null 2>&1
        state "is_dirty: Some(false), log: Empty, hibernation: Absent" "new"
        ntfsfix "$image" >/dev/null
        ntfsinfo -fm "$image" | grep -q 'Volume Flags:.* DIRTY'
        verdict state "ntfsinfo sees the dirty mark" $?
        state "is_dirty: Some(true)" "dirty, as ntfsinfo says"
        ntfsfix -d "$image" >/dev/null
        state "is_dirty: Some(false)" "cleared by ntfsfix -d"
        for word in hibr HIBR wake; do
            mkntfs -q -Q -F "$image" >/dev/null 2>&1
            { printf '%s' $word; head -c 8188 /dev/zero; } >"$work/hiberfil"
            ntfscp -f "$image" "$work/hiberfil" hiberfil.sys >/dev/null 2>&1
            kept=Hibernated
            [ $word = wake ] && kept=Unused
            state "hibernation: $kept" "hiberfil.sys of $word"
            ntfs-3g.probe --readwrite "$image" >/dev/null 2>&1
            rc=$?
            [ $kept = Hibernated ] && wanted=14 || wanted=0
            [ $rc = $wanted ]
            verdict state "ntfs-3g.probe agrees" $? "exit $rc"
        done
        continue
    fi
    truncate -s 900M "$image"
    # shellcheck disable=SC2086 # options are words
    mkntfs -q -Q -F -L "Volume ä" ${options[$case]} "$image" >/dev/null 2>&1 || { verdict "$case" mkntfs 1; continue; }
    small=small
    [[ $case == default || $case == 4kn ]] && small=
    with_mount rw python3 "$here/ntfs-tree.py" make "$work/mnt" $small || { verdict "$case" "ntfs-3g makes a tree" 1; continue; }
    same_trees "$case"
    same_files "$case"
    same_names "$case"
    identity "$case"
done
exit $failed
