#!/bin/bash
# Prints what real tools say of crates/volume's md: case, judge, verdict. The cases are test-images/volume/md-*, which
# a kernel's md wrote (scripts/images/md.sh); mdadm and blkid judge the superblocks.
set -euo pipefail
cd "$(dirname "$0")/../.."
judge() {
  local case=$1 judge=$2 test=$3 log
  if log=$(cargo test -q -p guestmend-volume --test volumes "md::$test" -- --exact --nocapture 2>&1); then
    if skipped=$(grep -a -o 'skipped: .*' <<<"$log"); then verdict=$skipped; else verdict=agrees; fi
    detail=$(grep -a -o '^[a-z0-9]*: [0-9]* arrays\|^[0-9]* members\|^[0-9]* arrays, .*' <<<"$log" | tr '\n' ' ' || true)
  else
    verdict=DIFFERS
    detail=$(grep -a -A2 panicked <<<"$log" | tr '\n' ' ' | cut -c1-200)
  fi
  printf '%-58s %-28s %-8s %s\n' "$case" "$judge" "$verdict" "$detail"
}
kernel="Linux $(sed -n 's/^tools = "\([^,]*\),.*/\1/p' test-images/volume/md-raid5.toml)"
judge 'linear, members of different sizes' "$kernel" linear
judge 'raid0: equal, odd chunk, zones in both layouts' "$kernel" raid0
judge 'raid1: 0.90 1.0 1.1 1.2 bitmap, every member missing' "$kernel" raid1
judge 'raid4, raid5: six layouts, every member missing' "$kernel" raid4_and_raid5
judge 'raid6: fourteen layouts, every two members missing' "$kernel" raid6
judge 'raid10: n2 n3 f2 f3 o2, copies missing' "$kernel" raid10
judge 'a stale member is left out' "$kernel" stale_members_are_left_out
judge 'spares' "$kernel" spares_are_not_read
judge 'a member that is rebuilt or replaces another' "$kernel" members_that_were_being_rebuilt_are_not_read
judge 'bad-block logs' "$kernel" bad_blocks_are_read_from_the_others
judge 'dirty: whole, degraded' "$kernel" a_dirty_array_is_read_whole_and_refused_degraded
judge 'a reshape that was interrupted' "$kernel" an_interrupted_reshape_is_refused
judge 'a write journal' "$kernel" a_journal_must_be_there_and_empty
judge 'every superblock: identity, role, state, sizes, layout' "$(mdadm --version 2>&1 | head -1 | cut -d' ' -f1-3), blkid" mdadm_and_blkid_agree
judge 'samples of util-linux, and a wrong checksum' 'blkid' samples_of_a_corpus
