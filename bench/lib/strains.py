"""What grants have to withstand: scenarios of `bench/elastic --adversarial`."""

import dataclasses
import os
import subprocess
import tempfile

from cgroups import hierarchy_of
from measure import NotMeasured
from workloads import Workload, dna, graph, picture_function


@dataclasses.dataclass(frozen=True)
class Scenario:
    """Runs of `taught` make the profile, then `workload`, which claims to be the same function, is run."""

    name: str
    taught: Workload | None
    workload: Workload
    count: int = 1  # containers at once
    loaded: bool = False  # whether all processors are busy
    poisoned: bool = False  # whether the profile is one that nobody has measured


def as_one(name, taught, workload, **more):
    """The function is known by what `taught` has shown."""

    def named(workload):
        return dataclasses.replace(workload, function=name.replace(" ", "-"), input="")

    return Scenario(name, taught and named(taught), named(workload), **more)


def strain(*arguments, declared=1024):
    return Workload("strain", "", ("/functions/strain", *map(str, arguments)), declared, own=True)


SCENARIOS = (
    as_one("10 x the input, pagerank", graph("pagerank", "10k"), graph("pagerank", "100k")),
    as_one("10 x the input, dna", dna("0.2MB"), dna("2.5MB")),
    as_one("poisoned profile", None, picture_function("scale", "16MP", 512), poisoned=True),
    as_one("burst of 1 GiB a second", strain("burst", 40, 1024, 3), strain("burst", 400, 1024, 3)),
    as_one("burst, as fast as it goes", strain("burst", 40, 100000, 3), strain("burst", 400, 100000, 3)),
    as_one("fork storm", strain("forks", 4, 3), strain("forks", 80, 3)),
    as_one("mmap, then touch", strain("reserve", 20, 3), strain("reserve", 400, 3)),
    as_one("tmpfs", strain("tmpfs", 16, 3), strain("tmpfs", 300, 3)),
    as_one("page cache", strain("cache", 16, 2), strain("cache", 700, 2)),
    as_one("20 at once, loaded", strain("burst", 10, 1024, 2), strain("burst", 100, 1024, 3), count=20, loaded=True),
)


def poison(command, config, namespace, scenario):
    """A profile by which the function needs next to nothing."""
    tiny = 1 << 20
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number in range(5):
            paths.append(os.path.join(folder, f"aux-{number}"))
            with open(paths[-1], "w", encoding="ascii") as file:
                file.write(f"{tiny + number * 4096}\n" * 100)
        function = f"{namespace}/{scenario.workload.function}"
        argv = [command, "--config", config, "profile", "import", "--function", function, "--form", "aux"]
        argv += ["--interval", "10ms", *paths]
        result = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise NotMeasured(f"the profile could not be poisoned: {result.stderr.strip()}")


class Burners:
    """Keeps all processors busy, from a control group beside that of the containers, as services of a host do. Busy
    processes outside of all groups starve containers on some kernels, see docs/troubleshooting.md."""

    def __init__(self, group):
        """`group`: that of the test bed, none if nothing is to be kept busy."""
        self.group = group
        self.processes = []

    def __enter__(self):
        if self.group is None:
            return self.processes
        folder = f"{hierarchy_of('cpu')[1]}{self.group}/burners"
        os.makedirs(folder, exist_ok=True)
        for _ in os.sched_getaffinity(0):
            process = subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"])
            self.processes.append(process)
            with open(os.path.join(folder, "cgroup.procs"), "w", encoding="ascii") as file:
                file.write(str(process.pid))
        return self.processes

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes.clear()
