"""One invocation of `compress`: packs the sources of Python's standard library quickly, then the first of them well.

usage: handler.py

Writes one line of JSON to standard output. The standard library only.
"""

import glob
import hashlib
import json
import lzma
import os
import time
import zlib

MOST = 28 << 20  # bytes that are packed quickly
WELL = 2 << 20  # bytes of them that are packed well


def sources():
    """The files one behind the other, by name, over again until there are enough."""
    names = glob.glob(os.path.join(os.path.dirname(os.__file__), "**", "*.py"), recursive=True)
    # Debian links some to /etc, which is not there.
    names = sorted(name for name in names if os.path.isfile(name))
    parts, size = [], 0
    while names and size < MOST:
        for name in names:
            with open(name, "rb") as file:
                parts.append(file.read())
            size += len(parts[-1])
            if size >= MOST:
                break
    return b"".join(parts)[:MOST]


def main():
    begin = time.monotonic()
    data = sources()
    quick = zlib.compress(data, 1)
    data = data[:WELL]  # the rest is not needed any more
    small = lzma.compress(data, preset=2)
    answer = {
        "function": "compress",
        "zlib_bytes": len(quick),
        "lzma_bytes": len(small),
        "digest": hashlib.sha256(quick + small).hexdigest(),
    }
    print(json.dumps({**answer, "duration_ms": round((time.monotonic() - begin) * 1000, 1)}))


if __name__ == "__main__":
    main()
