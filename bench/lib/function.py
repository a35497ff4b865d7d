"""Functions that are traced: each does what functions do, with nothing but the standard library.

usage: function.py NAME
"""

import sys


def json_document():
    import json

    document = [{"id": n, "name": f"name {n}", "values": list(range(n % 20))} for n in range(40_000)]
    assert json.loads(json.dumps(document)) == document


def compress():
    import io
    import os
    import zipfile

    source = os.path.dirname(os.__file__)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name in sorted(os.listdir(source))[:80]:
            if name.endswith(".py"):
                file.write(os.path.join(source, name), name)


def sort():
    import random

    chance = random.Random(1)
    values = [chance.random() for _ in range(400_000)]
    assert sorted(values)[0] == min(values)


def files():
    import os

    for number in range(20):
        with open(f"/tmp/{number}", "wb") as file:
            file.write(os.urandom(1 << 20))


class Held:
    """Memory that is touched page by page, and given back at once."""

    def __init__(self):
        self.parts = []

    def grow(self, mib, seconds=0.0):
        import mmap
        import time

        steps = 50 if seconds else 1
        for _ in range(steps):
            part = mmap.mmap(-1, (mib << 20) // steps // mmap.PAGESIZE * mmap.PAGESIZE)
            for offset in range(0, len(part), mmap.PAGESIZE):
                part[offset] = 1
            self.parts.append(part)
            time.sleep(seconds / steps)

    def shrink(self, parts):
        for part in self.parts[-parts:]:
            part.close()
        del self.parts[-parts:]


def memshape():
    """50, 300, a ramp to 600 MiB for 30 ms, 300, 50: what functracer was tried on (docs/tracing.md)."""
    import time

    held = Held()
    held.grow(50)
    time.sleep(1)
    held.grow(250)
    time.sleep(1)
    held.grow(300, 1.0)
    time.sleep(0.03)
    held.shrink(50)
    time.sleep(1)
    held.shrink(1)
    time.sleep(1)


def memslow():
    """50 MiB for 3 s, 150 for 3 s, 250 for 0.5 s, 150, and 50 from the ninth second on."""
    import time

    held = Held()
    held.grow(50)
    time.sleep(3)
    held.grow(100)
    time.sleep(3)
    held.grow(100)
    time.sleep(0.5)
    held.shrink(1)
    time.sleep(2.5)
    held.shrink(1)
    time.sleep(2)


NAMES = ("nothing", "json_document", "compress", "sort", "files", "memshape", "memslow")

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in NAMES:
        sys.exit(__doc__)
    if sys.argv[1] != "nothing":
        globals()[sys.argv[1]]()
