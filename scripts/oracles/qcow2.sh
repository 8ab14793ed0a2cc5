#!/usr/bin/env bash
# Compares our reading of qcow2 with QEMU's: a table of variants, byte by byte, with the time of each.
#
# Usage: scripts/oracles/qcow2.sh [MEGABYTES]     default 256; needs qemu-img and qemu-io
# "same" compares our conversion to raw with `qemu-img convert -O raw`; times are the best wall-clock seconds
# of three runs, page cache warm. Exit 1 when any variant differs.
set -euo pipefail

megabytes=${1:-256}
root=$(cd "$(dirname "$0")/../.." && pwd)
for tool in qemu-img qemu-io; do
  command -v "$tool" >/dev/null || { echo "skipped: $tool is not installed"; exit 0; }
done
cargo build --quiet --release --manifest-path "$root/Cargo.toml" -p guestmend-image --example convert ${FEATURES:+--features "$FEATURES"}
convert=${CARGO_TARGET_DIR:-$root/target}/release/examples/convert

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# Half noise, a quarter text, a quarter zeros, in turns of a megabyte.
for ((i = 0; i < megabytes; i += 4)); do
  head -c 2M /dev/urandom
  seq -f "line %.0f: the quick brown fox jumps over the lazy dog" $((i * 1000)) $((i * 1000 + 30000)) | head -c 1M || true
  head -c 1M /dev/zero
done >base.raw
truncate -s $((megabytes * 1048576 - 1536)) base.raw

best() { # seconds of the fastest of three runs of "$@", output to out.raw
  local times=() i start end
  for i in 1 2 3; do
    rm -f out.raw
    start=$(date +%s%N)
    "$@" >/dev/null
    end=$(date +%s%N)
    times+=($(((end - start) / 1000000)))
  done
  printf '%s\n' "${times[@]}" | sort -n | head -1
}

failed=0
row() { # NAME FILE
  local theirs ours verdict
  theirs=$(best qemu-img convert -O raw "$2" out.raw)
  mv out.raw expected.raw
  ours=$(best "$convert" "$2" out.raw)
  if cmp -s out.raw expected.raw; then verdict=same; else verdict=DIFFERS failed=1; fi
  printf '%-28s %-8s %8d %8d %7s\n' "$1" "$verdict" "$theirs" "$ours" "$(awk "BEGIN { printf \"%.2f\", $theirs / ($ours ? $ours : 1) }")x"
}

variant() { # NAME OPTIONS…
  local name=$1
  shift
  qemu-img convert -f raw -O qcow2 "$@" base.raw disk.qcow2
  row "$name" disk.qcow2
  rm -f disk.qcow2
}

printf '%-28s %-8s %8s %8s %7s\n' variant verdict "qemu ms" "ours ms" ratio
variant "version 3"
variant "version 2" -o compat=0.10
for size in 512 4k 16k 256k 2M; do variant "clusters of $size" -o cluster_size=$size; done
variant "deflate" -c
variant "deflate, clusters of 4k" -c -o cluster_size=4k
variant "deflate, clusters of 2M" -c -o cluster_size=2M
variant "zstd" -c -o compression_type=zstd
variant "zstd, clusters of 2M" -c -o compression_type=zstd,cluster_size=2M
variant "extended L2" -o extended_l2=on
variant "extended L2, deflate" -c -o extended_l2=on
variant "data file" -o data_file=disk.data
variant "raw data file" -o data_file=disk.data,data_file_raw=on
variant "preallocated metadata" -o preallocation=metadata
variant "no sparse clusters" -S 0

qemu-img create -q -f qcow2 -b base.raw -F raw one.qcow2
qemu-io -f qcow2 -c 'write -P 1 1M 5M' -c 'write -z 9M 3M' one.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b one.qcow2 -F qcow2 -o cluster_size=4k two.qcow2
qemu-io -f qcow2 -c 'write -P 2 2M 33k' two.qcow2 >/dev/null
row "backing raw" one.qcow2
row "backing qcow2, raw" two.qcow2
exit "$failed"
