"""What bench/placement makes of a run: where its memory lay, what it touched, and the latency that follows from that."""

import json
import math

# What a touch costs. The factor is the largest that was published: the inference of a network on Optane (Tzenetopoulos et
# al., HCDS 2025).
LOCAL_NS, REMOTE_NS = 80, 308
QUANTILE = 0.95
# The share of a function's time with local memory alone that is spent waiting for memory, by stage. It follows from the
# published slowdowns: with remote memory alone that share takes REMOTE_NS / LOCAL_NS as long.
FACTOR = REMOTE_NS / LOCAL_NS - 1
FUNCTIONS = {
    "dna": {"*": 0.135 / FACTOR},
    "thumbnail": {"*": 0.0},
    "recognition": {"load": 0.0, "preprocess": 0.0, "*": 1.0},
    "pagerank": {"*": 0.445 / FACTOR},
}


def read_recorded(path):
    """Latencies of each function in shares of their mean, of all its inputs, and the mean of the input in the middle."""
    found = {}
    with open(path, encoding="utf-8") as file:
        lines = [line.rstrip("\n") for line in file if line.strip() and not line.startswith("#")]
    for line in lines[1:]:
        function, _input, _slowdown, _memory, recorded = line.split(",")
        values = [float(value) for value in recorded.split()]
        mean = sum(values) / len(values)
        shares, means = found.setdefault(function, ([], []))
        shares += [value / mean for value in values]
        means.append(mean)
    return {function: (sorted(shares), sorted(means)[len(means) // 2]) for function, (shares, means) in found.items()}


def parse_answer(text):
    """The stages and the digest that a container printed, and what `placement` said of it, from a run of placed.sh."""
    stages, digest, placement = [], None, None
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if line.startswith('{"stage"'):
            stage = json.loads(line)
            if stage["stage"] == "end":
                digest = stage["digest"]
            else:
                stages.append(stage)
        elif word == "PLACEMENT":
            placement = json.loads(rest)
    if digest is None or not stages or placement is None:
        raise ValueError("it did not come to its end")
    return {"stages": stages, "digest": digest, "placement": placement}


def split_of(found):
    """Local and remote bytes at the end, and the local share."""
    local = sum(node["anon"] for node in found["placement"]["nodes"] if node["isLocal"])
    remote = sum(node["anon"] for node in found["placement"]["nodes"] if not node["isLocal"])
    return local, remote, local / max(local + remote, 1)


def touches_of(found, stage):
    """Touches of local and of remote pages in a stage."""
    local_nodes = {str(node["node"]) for node in found["placement"]["nodes"] if node["isLocal"]}
    local = sum(count for node, count in stage["touches"].items() if node in local_nodes)
    return local, sum(stage["touches"].values()) - local


def touched(found):
    """The share of all touches that were of local pages."""
    counts = [touches_of(found, stage) for stage in found["stages"]]
    local = sum(local for local, _ in counts)
    return local / (local + sum(remote for _, remote in counts))


def model_of(function, found):
    """How much longer it takes than with local memory alone. A stage takes its share of the touches."""
    shares = FUNCTIONS[function]
    spent = whole = 0.0
    for stage in found["stages"]:
        local, remote = touches_of(found, stage)
        waiting = shares.get(stage["stage"], shares["*"])
        touches = local + remote
        whole += touches
        spent += touches * (1 - waiting) + waiting * (local + remote * REMOTE_NS / LOCAL_NS)
    return spent / whole


def latencies(recorded, slower, chance, count):
    """So many latencies, which vary as the recorded ones do; no value comes twice."""
    shares, mean = recorded
    found = []
    for _ in range(count):
        at = chance.random() * (len(shares) - 1)
        below = min(int(at), len(shares) - 2)
        luck = shares[below] + (shares[below + 1] - shares[below]) * (at - below)
        found.append(mean * slower * luck)
    return found


def violates(over, requests):
    """Whether more requests were over the bound than may be, beyond chance: 3.1 standard deviations."""
    return over > (1 - QUANTILE) * requests + 3.1 * math.sqrt(QUANTILE * (1 - QUANTILE) * requests)


def known(function, measured):
    """A profile in which these runs are known: local ratio -> (a run at it, latencies)."""
    placed = [
        {
            "ratio": ratio,
            "local": split_of(found)[0],
            "latenciesUs": [round(latency * 1e6) for latency in latencies_s],
        }
        for ratio, (found, latencies_s) in sorted(measured.items())
    ]
    return {"version": 1, "function": f"state/{function}", "classes": {}, "placed": {"*": placed}}
