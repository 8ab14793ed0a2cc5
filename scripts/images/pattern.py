#!/usr/bin/env python3
"""pattern.py SEED SECTORS [FIRST]: writes the pattern that crates/volume/tests/volumes/support.rs knows.

Each sector of 512 bytes holds 64 little-endian numbers: the sector's number, the seed in bits 48..56, and the number
of the word in the top byte; so every sector says where it belongs, and the whole compresses well.
"""
import struct
import sys

seed, sectors = int(sys.argv[1]), int(sys.argv[2])
first = int(sys.argv[3]) if len(sys.argv) > 3 else 0
for sector in range(first, first + sectors):
    sys.stdout.buffer.write(struct.pack("<64Q", *(sector | seed << 48 | word << 56 for word in range(64))))
