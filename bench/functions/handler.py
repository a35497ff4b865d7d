"""Functions as platforms run them. Each copies its input to /tmp, as if it had been downloaded, and works on that.

usage: handler.py FUNCTION ARGUMENT...

Prints one line of JSON with a digest of its output: a run counts only if it is that of a run without limits. An
exception of any kind, also for want of memory, ends it with 1.
"""

import hashlib
import json
import os
import shutil
import sys
import time

SCRATCH = "/tmp"


def fetch(path):
    """Copies an input to where a function would download it to."""
    target = os.path.join(SCRATCH, os.path.basename(path))
    if os.path.isdir(path):
        shutil.copytree(path, target, symlinks=True)
    else:
        shutil.copy2(path, target)
    return target


def content(path):
    with open(path, "rb") as file:
        return file.read()


def halved(source, target):
    from PIL import Image

    with Image.open(source) as photograph:
        # convert() decodes the whole picture, which thumbnail() avoids.
        pixels = photograph.convert("RGB")
    size = tuple(max(1, side // 2) for side in pixels.size)
    pixels.resize(size, Image.Resampling.LANCZOS).save(target, "JPEG", quality=90)


def scale(photograph):
    target = os.path.join(SCRATCH, "half.jpg")
    halved(fetch(photograph), target)
    yield content(target)


def thumbnail(photograph):
    import io

    from PIL import Image

    target = io.BytesIO()
    with Image.open(io.BytesIO(content(fetch(photograph)))) as picture:
        picture.thumbnail((200, 200))
        picture.convert("RGB").save(target, "JPEG")
    yield target.getvalue()


def dna(genome):
    """The two-dimensional picture of a genome."""
    from squiggle import transform

    with open(fetch(genome), encoding="ascii") as file:
        file.readline()
        sequence = file.read().replace("\n", "")
    target = os.path.join(SCRATCH, "dna.json")
    x, y = transform(sequence)
    with open(target, "w", encoding="ascii") as file:
        file.write(json.dumps({"x": x, "y": y}))
    yield content(target)


def graph(algorithm, size):
    import random

    import igraph

    random.seed(42)
    network = igraph.Graph.Barabasi(int(size), 10)
    if algorithm == "pagerank":
        answer = [round(rank, 12) for rank in network.pagerank()]
    elif algorithm == "mst":
        answer = network.spanning_tree(None, False)
    else:
        answer = network.bfs(0)
    yield json.dumps(answer).encode()


def compress(tree):
    import zipfile

    root = fetch(tree)
    target = os.path.join(SCRATCH, "tree.zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    # Without the time of the file, which a copy may not keep.
                    info = zipfile.ZipInfo(os.path.relpath(path, root))
                    info.compress_type = zipfile.ZIP_DEFLATED
                    with archive.open(info, "w") as member:
                        shutil.copyfileobj(file, member)
    yield content(target)


def video(action, clip, mark):
    """A second of the clip with a mark on it, or two as an animated picture."""
    import subprocess

    from imageio_ffmpeg import get_ffmpeg_exe

    clip = fetch(clip)
    base = [get_ffmpeg_exe(), "-nostdin", "-v", "error", "-threads", "2", "-i", clip]
    if action == "watermark":
        target = os.path.join(SCRATCH, "marked.mp4")
        more = ["-i", mark, "-t", "1", "-filter_complex", "overlay=10:10", "-c:v", "libx264", "-threads", "2"]
    else:
        target = os.path.join(SCRATCH, "animated.gif")
        palette = "fps=10,scale=320:-1:flags=lanczos,split[a][b];[a]palettegen[p];[b][p]paletteuse"
        more = ["-t", "2", "-filter_complex", palette]
    subprocess.run([*base, *more, "-fflags", "+bitexact", "-flags", "+bitexact", target], check=True)
    yield content(target)


def inference(model, picture):
    import numpy
    import onnxruntime
    from PIL import Image

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(fetch(model), options, providers=["CPUExecutionProvider"])
    with Image.open(fetch(picture)) as photograph:
        pixels = photograph.convert("RGB").resize((224, 224))
    tensor = numpy.asarray(pixels, dtype=numpy.float32).transpose(2, 0, 1)[None] / 255 - 0.5
    (scores,) = session.run(None, {"picture": numpy.ascontiguousarray(tensor)})
    best = numpy.argsort(scores[0])[::-1][:5]
    # The order of additions, which threads may change, shows in the last digits only.
    yield json.dumps([[int(place), round(float(scores[0][place]), 3)] for place in best]).encode()


def stages():
    """Memory that rises in steps, page cache, memory again, with pauses between them."""
    import random

    end = time.process_time() + 0.7
    count = 0
    while time.process_time() < end:
        count += sum(range(1000))
    blocks = []
    for number in range(40):
        blocks.append(bytearray(b"%c" % (number + 1)) * (4 << 20))
        time.sleep(0.01)
    yield hashlib.sha256(blocks[-1]).digest()
    blocks.clear()
    time.sleep(0.3)
    chance = random.Random(1)
    target = os.path.join(SCRATCH, "stages")
    with open(target, "wb") as file:
        for _ in range(100):
            file.write(chance.randbytes(1 << 20))
        file.flush()
        os.fsync(file.fileno())
    with open(target, "rb") as file:
        while part := file.read(1 << 20):
            yield part
    os.unlink(target)
    time.sleep(0.3)
    last = bytearray(80 << 20)
    for at in range(0, len(last), 4096):
        last[at] = 1
    time.sleep(0.2)
    yield hashlib.sha256(last).digest()


def sleep(seconds):
    time.sleep(float(seconds))
    yield seconds.encode()


def server(path):
    """Answers each picture that is posted to a UNIX socket with its half, until it is told to end."""
    import http.server
    import socketserver

    answers = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def address_string(self):
            return "unix"

        def log_message(self, *_):
            pass

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/end":
                self.server.wanted = False
                answer = b""
            else:
                source, target = os.path.join(SCRATCH, "in"), os.path.join(SCRATCH, "out")
                with open(source, "wb") as file:
                    file.write(body)
                halved(source, target)
                answer = content(target)
                answers.append(hashlib.sha256(answer).digest())
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            if answer:
                self.wfile.write(answer)

    class Server(socketserver.UnixStreamServer):
        wanted = True

        def handle_error(self, request, client_address):
            raise  # a request that fails ends the function

    with Server(path, Handler) as listener:
        while listener.wanted:
            listener.handle_request()
    yield from answers


FUNCTIONS = (scale, thumbnail, dna, graph, compress, video, inference, stages, sleep, server)


def main(name, *arguments):
    function = {function.__name__: function for function in FUNCTIONS}[name]
    digest = hashlib.sha256()
    for part in function(*arguments):
        digest.update(part)
    print(json.dumps({"digest": digest.hexdigest()}))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
