#!/bin/bash
# Compares our XFS code with the kernel's, and asks xfs_repair about every image that we wrote to.
# Needs root for loop mounts, xfsprogs, python3. Prints a table: case, judge, verdict.
# usage: xfs.sh [CASE...]
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
work=$(mktemp -d "${TMPDIR:-/tmp}/xfs-oracle.XXXXXX")
trap 'mountpoint -q "$work/mnt" && umount "$work/mnt"; rm -rf "$work"' EXIT
mkdir "$work/mnt"
cargo build -q --manifest-path "$root/Cargo.toml" -p guestmend-filesystem-xfs --examples || exit 2
tree=$target/debug/examples/xfs_tree
replace=$target/debug/examples/xfs_replace
image=$work/image
failed=0

verdict() { # case judge rc [note]
    [ "$3" = 0 ] && local word=ok || { local word=FAIL; failed=1; }
    printf '%-12s %-34s %s%s\n' "$1" "$2" "$word" "${4:+  ($4)}"
}
with_mount() { # options command...
    local options=$1 rc
    shift
    mount -o "loop,$options" "$image" "$work/mnt" || return 1
    "$@"
    rc=$?
    umount "$work/mnt"
    return $rc
}
kernel_list() { with_mount ro python3 "$here/tree.py" list "$work/mnt" | LC_ALL=C sort >"$1"; }
our_list() { "$tree" "$image" 2>"$work/err" | LC_ALL=C sort >"$1"; }
same_trees() { # case
    kernel_list "$work/kernel" && our_list "$work/ours" && cmp -s "$work/kernel" "$work/ours"
    local rc=$?
    verdict "$1" "tree as the kernel shows it" $rc "$(wc -l <"$work/ours") files"
}
repair() { # case note
    xfs_repair -n -f "$image" >"$work/repair" 2>&1
    local rc=$?
    verdict "$1" "xfs_repair -n after $2" $rc
    [ $rc = 0 ] || cat "$work/repair"
}
edit() { # case path size wanted
    local case=$1 path=$2 size=$3 wanted=$4 said
    python3 -c 'import sys; sys.stdout.buffer.write(bytes(b"0123456789abcdef"[(k//7)%16] for k in range(int(sys.argv[1]))))' "$size" >"$work/content"
    said=$("$replace" "$image" "$path" "$work/content" 2>&1)
    [[ $said == $wanted* ]]
    verdict "$case" "replace $path by $size bytes" $? "$said"
    repair "$case" "that"
    [ "$said" = ok ] || return
    our_list "$work/ours"
    grep -F ".$path	" "$work/ours" | grep -qF "$(sha256sum <"$work/content" | cut -c1-64)"
    verdict "$case" "content as we read it" $?
    [[ $case == v4* ]] && return
    with_mount ro cmp -s "$work/content" "$work/mnt$path"
    verdict "$case" "content as the kernel reads it" $?
}

# Every case: what mkfs.xfs is told.
declare -A options=(
    [default]=""
    [el7]="-m crc=1,finobt=0,reflink=0,bigtime=0 -i sparse=0"
    [1k]="-b size=1024"
    [4kn]="-s size=4096"
    [64k-dirs]="-n size=65536"
    [16k-dirs]="-b size=1024 -n size=16384"
    [nrext64]="-i nrext64=1"
    [bigtime]="-m bigtime=1"
    [reflink]="-m reflink=1"
    [rmapbt]="-m rmapbt=1,reflink=0"
    [all]="-m rmapbt=1,reflink=1,bigtime=1,inobtcount=1 -i nrext64=1"
    [16k-blocks]="-b size=16384 -i size=2048"
    [64k-blocks]="-b size=65536"
    [many-ags]="-d agcount=16 -l size=64m"
    [stripes]="-d su=64k,sw=2 -l su=32k"
)
cases=(default el7 1k 4kn 64k-dirs 16k-dirs nrext64 bigtime reflink rmapbt all 16k-blocks 64k-blocks many-ags stripes)
[ $# -gt 0 ] && cases=("$@")

for case in "${cases[@]}"; do
    rm -f "$image"
    truncate -s 1500M "$image"
    # shellcheck disable=SC2086 # options are words
    mkfs.xfs -q ${options[$case]} "$image" || { verdict "$case" mkfs.xfs 1; continue; }
    with_mount rw python3 "$here/tree.py" make "$work/mnt" || { verdict "$case" "kernel makes a tree" 1; continue; }
    same_trees "$case"
    for size in 1000 100 12000 30000 0 1000000; do edit "$case" /files/size60 "$size" ok; done
    edit "$case" /files/size0 5000 ok
    edit "$case" /files/sparse 1500000 ok
    edit "$case" /files/size65536 60000 ok
    edit "$case" /files/fragmented 1000 ok
    case $case in
        *-blocks) edit "$case" /files/fragmented 5000000 ok ;; # too few extents for a tree
        *) edit "$case" /files/fragmented 5000000 refused ;;
    esac
    case $case in
        rmapbt | all) edit "$case" /files/unwritten 250000 refused ;;
        *) edit "$case" /files/unwritten 250000 ok ;;
    esac
    same_trees "$case"
    with_mount rw sh -c "cp -r '$work/mnt/files' '$work/mnt/copy' && rm -r '$work/mnt/files' && sync"
    verdict "$case" "kernel writes and deletes afterwards" $?
    repair "$case" "that"
done

# Version 4 has no kernel here: what mkfs.xfs -p wrote, against the files it took.
v4() { # case mkfs-options
    local case=$1 number path
    rm -rf "$image" "$work/from"
    mkdir "$work/from"
    {
        printf '/dev/null\n0 0\nd--755 0 0\n'
        for number in 0 1 60 511 512 513 4096 65536 1000003; do
            path=$work/from/f$number
            head -c "$number" /dev/urandom >"$path"
            echo "f$number ---644 $number 7 $path"
        done
        for number in 1 59 400 1000 1023; do
            echo "l$number l--777 0 0 $(printf '%01023d' 0 | head -c "$number")"
        done
        for number in 10 200 3000 20000; do
            echo "d$number d--755 0 0"
            for ((n = 0; n < number; n++)); do echo "entry-$n p--600 0 0"; done
            echo '$'
        done
        echo '$'
    } >"$work/proto"
    truncate -s 400M "$image"
    # shellcheck disable=SC2086 # options are words
    mkfs.xfs -q -m crc=0,finobt=0,reflink=0 $2 -p "$work/proto" "$image" 2>/dev/null
    verdict "$case" "mkfs.xfs -p" $?
    our_list "$work/ours"
    for path in "$work"/from/*; do
        grep -qF "$(sha256sum <"$path" | cut -c1-64)" <(grep -F "./${path##*/}	" "$work/ours") || echo "${path##*/}"
    done >"$work/wrong"
    for number in 1 59 400 1000 1023; do
        grep -qP "^\./l$number\tl\t.*\t0{$number}\t" "$work/ours" || echo "l$number"
    done >>"$work/wrong"
    for number in 10 200 3000 20000; do
        [ "$(grep -cP "^\./d$number/entry-\d+\tp" "$work/ours")" = "$number" ] || echo "d$number"
    done >>"$work/wrong"
    verdict "$case" "tree as mkfs.xfs was told" "$([ -s "$work/wrong" ] && echo 1 || echo 0)" "$(wc -l <"$work/ours") files $(tr '\n' ' ' <"$work/wrong")"
    for size in 1000 100 12000 30000 0 1000000; do edit "$case" /f60 "$size" ok; done
    edit "$case" /f0 5000 ok
    edit "$case" /f1000003 2000000 ok
}
if [ $# = 0 ]; then
    v4 v4 "-n ftype=0"
    v4 v4-ftype "-n ftype=1"
    v4 v4-256 "-n ftype=0 -i size=256 -b size=1024"
    v4 v4-512 "-n ftype=0,size=4096 -i size=256 -b size=512"
    v4 v4-old "-n ftype=0 -i attr=1,projid32bit=0 -l version=1"
    v4 v4-ci "-n version=ci,ftype=0"
    v4 v4-4kn "-n ftype=1 -s size=4096"
fi
exit $failed
