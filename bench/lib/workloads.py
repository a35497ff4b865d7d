"""Functions of bench/elastic: what they need, how they are called, what is sent to them from outside."""

import dataclasses
import glob
import gzip
import hashlib
import http.client
import os
import random
import shutil
import socket
import time

from fetched import PHOTOGRAPHS_FOLDER, PHOTOGRAPHS_PACKAGE, PILLOW, PYTHON, cached, command, from_debian, from_pip, python_version
from measure import NotMeasured

FUNCTIONS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "functions")
SOCKETS = "/sockets"  # inside

PHOTOGRAPHS = {  # megapixels -> file
    "1.5MP": "Picture_1A_by_freespace.jpg",
    "8MP": "picosdeeuropa_by_Aitzol_Berasategi.jpg",
    "16MP": "seeding_by_Clements_Engelhardt.jpg",
}
GENOME_PACKAGE, GENOME_FOLDER, GENOME = "bowtie-examples", "usr/share/doc/bowtie/examples/genomes", "NC_008253.fna.gz"
GENOME_SIZES = {"0.2MB": 200_000, "1MB": 1_000_000, "2.5MB": 2_500_000}

# Sets of Python packages; the second value: without what they depend on.
PACKAGES = {
    "pillow": ((f"pillow=={PILLOW}",), True),
    "graph": (("igraph==0.11.8", "texttable==1.7.0"), True),
    "dna": (("squiggle==0.3.1", "numpy==2.4.6", "tqdm==4.70.1"), True),
    "video": (("imageio-ffmpeg==0.8.1",), True),
    "inference": (("onnxruntime==1.32.0", "numpy==2.4.6"), False),
    "onnx": (("onnx==1.23.2", "numpy==2.4.6"), False),
}


@dataclasses.dataclass(frozen=True)
class Workload:
    """A function with an input."""

    function: str
    input: str
    command: tuple
    declared: int  # MiB
    packages: tuple = ()
    inputs: tuple = ()
    asked: bool = False  # whether requests are sent to it
    announced: bool = False  # whether their begins and ends are told to the control socket
    own: bool = False  # whether it is a program of ours and not a function that is met in practice

    @property
    def name(self):
        return f"{self.function} {self.input}".rstrip()


def python(function, size, declared, *arguments, packages=(), inputs=(), **more):
    line = (PYTHON, "-S", "-B", "/functions/handler.py", *arguments)
    return Workload(function, size, line, declared, packages, inputs, **more)


def photograph(size):
    return f"/inputs/photographs/{size}.jpg"


def graph(algorithm, size):
    return python(algorithm, size, 512, "graph", algorithm, size.replace("k", "000"), packages=("graph",))


def picture_function(function, size, declared):
    return python(function, size, declared, function, photograph(size), packages=("pillow",), inputs=("photographs",))


def dna(size):
    return python("dna", size, 2048, "dna", f"/inputs/genome/{size}.fna", packages=("dna",), inputs=("genome",))


def video(action):
    arguments = ("video", action, "/inputs/clip/clip.mp4", "/inputs/clip/mark.png")
    return python("video", action, 512, *arguments, packages=("video",), inputs=("clip",))


def inference(size):
    arguments = ("inference", "/inputs/model/model.onnx", photograph(size))
    return python("inference", size, 768, *arguments, packages=("inference", "pillow"), inputs=("model", "photographs"))


def calls(seed):
    return Workload("calls", "", ("/functions/strain", "calls", "4", str(seed)), 256, own=True)


WORKLOADS = (
    picture_function("thumbnail", "16MP", 256),
    picture_function("scale", "1.5MP", 512),
    picture_function("scale", "8MP", 512),
    picture_function("scale", "16MP", 512),
    dna("1MB"),
    dna("2.5MB"),
    graph("pagerank", "10k"),
    graph("pagerank", "100k"),
    graph("mst", "100k"),
    graph("bfs", "100k"),
    python("compress", "8MB", 256, "compress", "/packages/graph", packages=("graph",)),
    python("compress", "130MB", 512, "compress", "/packages/inference", packages=("inference",)),
    video("watermark"),
    video("gif"),
    inference("1.5MP"),
    inference("16MP"),
    python("stages", "", 512, "stages"),
    python("sleep", "1s", 128, "sleep", "1"),
    python("server", "", 512, "server", f"{SOCKETS}/http", packages=("pillow",), inputs=("photographs",), asked=True),
    python(
        "server",
        "announced",
        512,
        *("server", f"{SOCKETS}/http"),
        packages=("pillow",),
        inputs=("photographs",),
        asked=True,
        announced=True,
    ),
    calls(1),
)
QUICK = ("pagerank 100k", "compress 8MB", "calls")


# Set-up


class Stock:
    """Packages and inputs that are fetched or made once, below a folder."""

    def __init__(self, folder, say):
        self.folder = folder
        self.say = say
        os.makedirs(folder, exist_ok=True)

    def cached(self, name, key, make):
        return cached(self.folder, name, key, lambda text: self.say(f"{name}: {text}"), make)

    def packages(self, name):
        requirements, bare = PACKAGES[name]
        options = ("--no-deps",) if bare else ()
        key = [*requirements, bare, python_version()]
        return self.cached(f"packages-{name}", key, lambda folder: from_pip(requirements, folder, *options))

    def inputs(self, name):
        return getattr(self, name)()

    def photographs(self):
        def make(folder):
            from_debian(PHOTOGRAPHS_PACKAGE, folder, "benchmark", PHOTOGRAPHS.values(), PHOTOGRAPHS_FOLDER)
            for size, name in PHOTOGRAPHS.items():
                os.rename(os.path.join(folder, name), os.path.join(folder, f"{size}.jpg"))

        return self.cached("photographs", [PHOTOGRAPHS_PACKAGE, PHOTOGRAPHS], make)

    def genome(self):
        def make(folder):
            from_debian(GENOME_PACKAGE, folder, "benchmark", [GENOME], GENOME_FOLDER)
            with gzip.open(os.path.join(folder, GENOME), "rt", encoding="ascii") as file:
                head, whole = file.readline(), file.read()
            os.unlink(os.path.join(folder, GENOME))
            for size, bases in GENOME_SIZES.items():
                with open(os.path.join(folder, f"{size}.fna"), "w", encoding="ascii") as file:
                    file.write(head + whole[:bases])

        return self.cached("genome", [GENOME_PACKAGE, GENOME_SIZES], make)

    def clip(self):
        (ffmpeg,) = glob.glob(os.path.join(self.packages("video"), "imageio_ffmpeg", "binaries", "ffmpeg-*"))
        picture = ["-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=30:duration=3", "-vf", "noise=alls=12:allf=t"]
        mark = ["-f", "lavfi", "-i", "color=c=red@0.5:size=200x80,format=rgba", "-frames:v", "1"]

        def make(folder):
            base = [ffmpeg, "-nostdin", "-v", "error"]
            command([*base, *picture, "-c:v", "libx264", os.path.join(folder, "clip.mp4")], "making a clip")
            command([*base, *mark, os.path.join(folder, "mark.png")], "making a mark")

        return self.cached("clip", [*PACKAGES["video"][0], *picture, *mark], make)

    def model(self):
        source = os.path.join(FUNCTIONS, "model.py")
        packages = self.packages("onnx")
        with open(source, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()

        def make(folder):
            environment = {**os.environ, "PYTHONPATH": packages}
            argv = [PYTHON, "-B", source, os.path.join(folder, "model.onnx")]
            command(argv, "making a model", env=environment)

        return self.cached("model", [*PACKAGES["onnx"][0], digest], make)

    def program(self, source):
        """A C program, static, so that it runs in guests that have no compiler."""
        name = os.path.basename(source).removesuffix(".c")
        with open(source, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()

        def make(folder):
            argv = ["/usr/bin/gcc", "-O2", "-static", "-o", os.path.join(folder, name), source]
            command(argv, f"compiling {name}")

        return os.path.join(self.cached(f"program-{name}", digest, make), name)


class Place:
    """What containers see of the host: a root file system, and the packages and inputs of each workload."""

    def __init__(self, folder, stock, workloads):
        self.rootfs = os.path.join(folder, "rootfs")
        self.functions = os.path.join(folder, "functions")
        os.makedirs(self.functions)
        shutil.copy(os.path.join(FUNCTIONS, "handler.py"), self.functions)
        shutil.copy(stock.program(os.path.join(FUNCTIONS, "strain.c")), self.functions)
        self.sources = {name: stock.packages(name) for name in sorted({n for w in workloads for n in w.packages})}
        self.sources |= {name: stock.inputs(name) for name in sorted({n for w in workloads for n in w.inputs})}
        for name in ("dev", "functions", "proc", "sys", "tmp", "usr", SOCKETS[1:]):
            os.makedirs(os.path.join(self.rootfs, name))
        self.system = ["/usr"]
        for name in ("bin", "lib", "lib64"):
            if os.path.islink(f"/{name}"):
                os.symlink(os.readlink(f"/{name}"), os.path.join(self.rootfs, name))
            elif os.path.isdir(f"/{name}"):
                os.mkdir(os.path.join(self.rootfs, name))
                self.system.append(f"/{name}")
        for workload in workloads:
            for target, _ in self.mounts(workload):
                os.makedirs(os.path.join(self.rootfs, target[1:]), exist_ok=True)

    def mounts(self, workload):
        """(target, source) of all that is only read."""
        return [
            ("/functions", self.functions),
            *((folder, folder) for folder in self.system),
            *((f"/packages/{name}", self.sources[name]) for name in workload.packages),
            *((f"/inputs/{name}", self.sources[name]) for name in workload.inputs),
        ]

    def adapt(self, config, workload, sockets):
        """Makes a container's configuration that of a workload."""
        process = config["process"]
        process["env"] = ["PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1"]
        process["env"].append("PYTHONPATH=" + ":".join(f"/packages/{name}" for name in workload.packages))
        config["linux"]["resources"]["memory"] = {"limit": workload.declared << 20}
        config.setdefault("annotations", {})["elastic-mem.io/function"] = workload.function
        if workload.input:
            config["annotations"]["elastic-mem.io/class"] = workload.input
        for mount in config["mounts"]:
            if mount["destination"] == "/dev/shm":
                mount["options"] = [text for text in mount["options"] if not text.startswith("size=")] + ["size=1g"]
        for target, source in self.mounts(workload):
            options = ["rbind", "ro", "nosuid", "nodev"]
            config["mounts"].append({"destination": target, "type": "bind", "source": source, "options": options})
        if workload.asked:
            options = ["rbind", "rw", "nosuid", "nodev"]
            config["mounts"].append({"destination": SOCKETS, "type": "bind", "source": sockets, "options": options})


# Requests


class Connection(http.client.HTTPConnection):
    def __init__(self, path, patience):
        super().__init__("localhost", timeout=patience)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


REQUESTS = ("1.5MP", "8MP", "1.5MP", "1.5MP", "16MP", "8MP")


def ask(folder, photographs, patience, announce):
    """Sends pictures with gaps between them, the same ones each time; `announce` is given each begin and end."""
    path = os.path.join(folder, "http")
    deadline = time.monotonic() + patience
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise NotMeasured(f"the server made no socket within {patience} s")
        time.sleep(0.005)
    gaps = random.Random(1)
    digest = hashlib.sha256()
    for size in REQUESTS:
        time.sleep(gaps.uniform(0.2, 1.2))
        with open(os.path.join(photographs, f"{size}.jpg"), "rb") as file:
            body = file.read()
        announce({"phase": "begin", "inputBytes": len(body)})
        answer = post(path, "/", body, patience)
        announce({"phase": "end"})
        digest.update(hashlib.sha256(answer).digest())
    post(path, "/end", b"", patience)
    return digest.hexdigest()


def post(path, target, body, patience):
    connection = Connection(path, patience)
    try:
        connection.request("POST", target, body, {"Connection": "close"})
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise http.client.HTTPException(f"status {response.status}")
    return answer
