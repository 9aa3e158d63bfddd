#!/usr/bin/env python3
"""Expands LZO1X blocks with liblzo2, the peer of src/lzo.rs, and writes the bytes to the standard output.

    lzo_peer.py BLOCK LENGTH [BLOCK LENGTH]...
    lzo_peer.py < lines of "BLOCK LENGTH"

BLOCK is a file that holds one block and nothing else; LENGTH is the number of bytes that it must expand to.
Exit code 1: liblzo2 refuses a block, or it has another length; 77: there is no liblzo2 (Debian: liblzo2-2).
"""

import ctypes
import sys


def main():
    try:
        expand = ctypes.CDLL("liblzo2.so.2").lzo1x_decompress_safe
    except OSError as error:
        print(f"lzo_peer: {error}", file=sys.stderr)
        return 77
    # src, src_len, dst, dst_len, wrkmem (not used)
    expand.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.c_size_t),
        ctypes.c_void_p,
    ]
    args = sys.argv[1:]
    pairs = zip(args[::2], args[1::2], strict=True) if args else (line.rstrip("\n").rsplit(" ", 1) for line in sys.stdin)
    for path, length in pairs:
        with open(path, "rb") as file:
            block = file.read()
        length = int(length)
        page = ctypes.create_string_buffer(max(length, 1))
        expanded = ctypes.c_size_t(length)
        code = expand(block, len(block), page, ctypes.byref(expanded), None)
        if code != 0 or expanded.value != length:
            print(f"lzo_peer: {path}: code {code}, {expanded.value} of {length} bytes", file=sys.stderr)
            return 1
        sys.stdout.buffer.write(page.raw[:length])
    return 0


sys.exit(main())
