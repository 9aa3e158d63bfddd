"""Writes a kdump dump again whose LZO pages went through liblzo2, the peer of formats/kdump/src/lzo.rs.

    lzo_peer.py expand DUMP OUT     liblzo2 expands the pages, and they are stored as they are
    lzo_peer.py pack DUMP OUT       and then liblzo2 packs them again

Prints how many pages those were. Exit status 1: liblzo2 refuses a page, or a page has another length; 77: there is no
liblzo2. It takes what we write: version 6, little-endian, 64-bit structures, in one file.

Source: spec/kdump.md sections 1 to 4; LZO 2.10 include/lzo/lzo1x.h.
"""

import ctypes
import struct
import sys

DESCRIPTOR = struct.Struct("<QIIQ")
LZO = 2
# LZO1X_999_MEM_COMPRESS, the larger of both.
WORK_LEN = 14 * 16384 * 2
# lzo1x_999 uses forms of the format that lzo1x_1 does not, and takes twenty times as long.
THOROUGH = 8

try:
    liblzo2 = ctypes.CDLL("liblzo2.so.2")
except OSError as error:
    print(error, file=sys.stderr)
    sys.exit(77)
work = ctypes.create_string_buffer(WORK_LEN)


def call(function, data, room):
    out, length = ctypes.create_string_buffer(room), ctypes.c_size_t(room)
    code = function(data, ctypes.c_size_t(len(data)), out, ctypes.byref(length), work)
    if code != 0:
        sys.exit(f"liblzo2 returned {code}")
    return out.raw[: length.value]


def expand(block, page_len):
    page = call(liblzo2.lzo1x_decompress_safe, block, page_len)
    if len(page) != page_len:
        sys.exit(f"a page has {len(page)} bytes")
    return page


def pack(page, is_thorough):
    function = liblzo2.lzo1x_999_compress if is_thorough else liblzo2.lzo1x_1_compress
    return call(function, page, len(page) + len(page) // 16 + 64 + 3)


task, source, target = sys.argv[1:]
with open(source, "rb") as file:
    dump = file.read()
page_len, sub_blocks, bitmap_blocks = struct.unpack_from("<iiI", dump, 428)
bitmap = dump[(1 + sub_blocks + bitmap_blocks // 2) * page_len :][: bitmap_blocks // 2 * page_len]
count = int.from_bytes(bitmap, "little").bit_count()
table = (1 + sub_blocks + bitmap_blocks) * page_len

descriptors, data = [], bytearray()
# Pages that share their bytes go on to do so, or a zero page would not be known as one.
written = {}
changed = 0
for offset, size, flags, page_flags in DESCRIPTOR.iter_unpack(dump[table : table + count * DESCRIPTOR.size]):
    if offset not in written:
        stored = dump[offset : offset + size]
        if flags == LZO:
            changed += 1
            page = expand(stored, page_len)
            block = pack(page, changed % THOROUGH == 0) if task == "pack" else page
            stored, flags = (block, LZO) if len(block) < page_len else (page, 0)
        written[offset] = (table + count * DESCRIPTOR.size + len(data), len(stored), flags)
        data += stored
    descriptors.append(DESCRIPTOR.pack(*written[offset], page_flags))
with open(target, "wb") as file:
    file.write(dump[:table] + b"".join(descriptors) + data)
print(changed)
