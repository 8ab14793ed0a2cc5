#!/usr/bin/env python3
"""Packs small disks with partition tables into one archive: scripts/images/partitions.py OUT.zst FILE[:SECTOR_SIZE]...

The archive, before zstd: for each disk the length of its name (u8), the name, its size (u64), its sector size (u32), the
count of 512-byte sectors that are not zero (u32), then each as number (u64) and bytes. Little-endian.
"""
import os
import struct
import subprocess
import sys

out, packed = sys.argv[1], bytearray()
for argument in sys.argv[2:]:
    path, _, sector_size = argument.partition(":")
    name = os.path.basename(path).split(".")[0].encode()
    size, sectors = os.path.getsize(path), []
    with open(path, "rb") as disk:
        for chunk_number in range(0, size, 1 << 20):
            chunk = disk.read(1 << 20)
            if any(chunk):
                for at in range(0, len(chunk), 512):
                    sector = chunk[at : at + 512].ljust(512, b"\0")
                    if any(sector):
                        sectors.append(struct.pack("<Q", (chunk_number + at) // 512) + sector)
    packed += struct.pack("<B", len(name)) + name + struct.pack("<QII", size, int(sector_size or 512), len(sectors))
    packed += b"".join(sectors)
subprocess.run(["zstd", "-q", "-f", "-19", "-o", out], input=bytes(packed), check=True)
