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


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in ("nothing", "json_document", "compress", "sort", "files"):
        sys.exit(__doc__)
    if sys.argv[1] != "nothing":
        globals()[sys.argv[1]]()
