#!/usr/bin/env python3
"""Makes DIR/secret, encrypted with a key that is added for that and removed again, with files in it. Needs root."""
import fcntl
import os
import struct
import sys

FS_IOC_ADD_ENCRYPTION_KEY = 0xC0506617
FS_IOC_SET_ENCRYPTION_POLICY = 0x800C6613
FS_IOC_REMOVE_ENCRYPTION_KEY = 0xC0406618

root = sys.argv[1]
top = os.open(root, os.O_RDONLY)
key = bytes(range(64))
# struct fscrypt_add_key_arg: specifier of type 2 (identifier), size of the key, its id, reserved, the key.
argument = bytearray(struct.pack("<II32s", 2, 0, b"") + struct.pack("<II32s", len(key), 0, b"") + key)
fcntl.ioctl(top, FS_IOC_ADD_ENCRYPTION_KEY, argument)
identifier = bytes(argument[8:24])
folder = os.path.join(root, "secret")
os.mkdir(folder)
handle = os.open(folder, os.O_RDONLY)
# struct fscrypt_policy_v2: AES-256-XTS for contents, AES-256-CTS for names, names padded to 32 bytes.
fcntl.ioctl(handle, FS_IOC_SET_ENCRYPTION_POLICY, struct.pack("<BBBBB3s16s", 2, 1, 4, 3, 0, b"", identifier))
os.close(handle)
for number in range(300):
    with open(os.path.join(folder, f"file-{number}"), "wb") as file:
        file.write(b"secret " * number)
os.mkdir(os.path.join(folder, "sub"))
os.symlink("target", os.path.join(folder, "link"))
os.sync()
fcntl.ioctl(top, FS_IOC_REMOVE_ENCRYPTION_KEY, bytearray(struct.pack("<II32sI20s", 2, 0, identifier, 0, b"")))
