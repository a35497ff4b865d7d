"""One invocation of `scale`: decodes each photograph in full, halves it and writes it as JPEG.

usage: handler.py OUTPUT_FOLDER PHOTOGRAPH...

Writes one line of JSON to standard output.
"""

import json
import os
import sys
import time

from PIL import Image


def scale(source, target):
    """Halves one photograph; returns its size in pixels."""
    with Image.open(source) as photograph:
        size = photograph.size
        # convert() decodes the whole picture. Image.thumbnail() would let the JPEG decoder shrink it
        # on the way, which needs a tenth of the memory: a different function.
        pixels = photograph.convert("RGB")
    half = pixels.resize((max(1, size[0] // 2), max(1, size[1] // 2)), Image.Resampling.LANCZOS)
    half.save(target, "JPEG", quality=90)
    return size


def main(output_folder, photographs):
    begin = time.monotonic()
    input_bytes = output_bytes = 0
    sizes = []
    for source in photographs:
        target = os.path.join(output_folder, os.path.basename(source))
        width, height = scale(source, target)
        sizes.append(f"{width}x{height}")
        input_bytes += os.path.getsize(source)
        output_bytes += os.path.getsize(target)
    print(
        json.dumps(
            {
                "function": "scale",
                "photographs": sizes,
                "input_bytes": input_bytes,
                "output_bytes": output_bytes,
                "duration_ms": round((time.monotonic() - begin) * 1000, 1),
            }
        )
    )


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: handler.py OUTPUT_FOLDER PHOTOGRAPH...")
    main(sys.argv[1], sys.argv[2:])
