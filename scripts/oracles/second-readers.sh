#!/bin/bash
# Compares our XFS, btrfs and NTFS readers with those of rust-fs-xfs, rust-fs-btrfs and rust-fs-ntfs over the test images:
# kinds, sizes, contents and targets. Prints a table: case, judge, verdict. Needs zstd, and crates.io at the first build.
# usage: second-readers.sh [IMAGE...]   with images of your own: each a file system on one device
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/oracle/target}
work=$(mktemp -d "${TMPDIR:-/tmp}/second-readers.XXXXXX")
trap 'rm -rf "$work"' EXIT
CARGO_TARGET_DIR=$target cargo build -q --manifest-path "$root/oracle/Cargo.toml" || exit 2
failed=0
judge() { # case judge images...
    local case=$1 judge=$2 said rc
    shift 2
    said=$(timeout 300 "$target/debug/guestmend-oracle" "$@" 2>"$work/err")
    rc=$?
    case $rc in
        0) word=ok ;;
        3) word="explained: not read by the other" ;;
        101) grep -q 'panicked at .*rust-fs-' "$work/err" && word="explained: the other panics" || { word=FAIL; failed=1; } ;;
        *) word=$(explained "$case" "$said") || { word=FAIL; failed=1; } ;;
    esac
    printf '%-22s %-14s %s  (%s)\n' "$case" "$judge" "$word" "$(tail -1 <<<"$said")"
    [ "$word" != FAIL ] || { head -8 <<<"$said" | cut -c1-200; head -3 "$work/err"; }
}
# Says why, when every difference is of one known kind.
explained() { # case said
    local rest
    rest=$(grep -v -e '^[0-9]* files' <<<"$2")
    case $1 in
        # It shows a subvolume as a name, and we what is in it.
        btrfs*) rest=$(awk -F': ours ' '$2 ~ /theirs s 0/ {sub(/: ours.*/, "", $0); names[$0]=1; next} {path=$1; while (path != "" && !(path in names)) {if (!sub(/\/[^\/]*$/, "", path)) path=""} if (path == "") print}' <<<"$rest")
            [ -z "$rest" ] && echo "explained: it does not enter subvolumes" ;;
        ntfs*)
            # Links without a target, special files of Interix as plain ones, files in the cloud that we refuse by
            # name, and names that differ by case alone, which it takes for one.
            rest=$(grep -v -e 'a reparse point$' -e 'ours ? 0 .* theirs - ' -e 'ours l 0 .* theirs - ' \
                -e 'in the cloud .* is not supported' -e '^names/[cC][aA][sS][eE]: ' <<<"$rest")
            # Names with half a surrogate pair are none in its language, whatever it makes of them.
            rest=$(grep -v -e '\\xed\\x[ab]' -e '\\xef\\xbf\\xbd' <<<"$rest")
            [ -z "$rest" ] && echo "explained: reparse points, Interix files, names by case or without UTF-8" ;;
        xfs*) rest=$(grep -v -P 'symlink block read from block (\d+) claims to be block \1$' <<<"$rest")
            [ -z "$rest" ] && echo "explained: it refuses a symlink's block whose number is right, by its own words" ;;
        *) false ;;
    esac
}
if [ $# -gt 0 ]; then
    for image in "$@"; do judge "$(basename "$image")" "second reader" "$image"; done
    exit $failed
fi
for packed in "$root"/test-images/filesystem/{xfs,btrfs,ntfs}-*.zst; do
    case=$(basename "$packed" .img.zst)
    rm -f "$work"/image*
    zstd -dq --long=27 "$packed" -o "$work/image" || exit 2
    images=("$work/image")
    devices=$(sed -n 's/^# \([0-9]*\) btrfs devices.*/\1/p' "${packed%.zst}.toml")
    if [ -n "$devices" ]; then
        size=$(($(stat -c %s "$work/image") / devices))
        images=()
        for ((number = 0; number < devices; number++)); do
            dd if="$work/image" of="$work/image$number" bs=1M iflag=skip_bytes,count_bytes skip=$((number * size)) count=$size conv=sparse status=none
            truncate -s "$size" "$work/image$number"
            images+=("$work/image$number")
        done
    fi
    judge "$case" "rust-fs-${case%%-*}" "${images[@]}"
done
exit $failed
