"""The machines that a guest can have: processors, memory nodes, tiers."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Node:
    """A memory node. Latency (ns) and bandwidth (GB/s) are what the firmware tables say, not how fast it is."""

    mib: int
    cpus: str = ""
    near: int = 0
    latency: int = 80
    bandwidth: int = 120


@dataclasses.dataclass(frozen=True)
class Topology:
    """Nodes, whether the firmware tells how fast they are (HMAT), and what holds the last one if not the board.

    A CXL device, or a module (DIMM) that can be taken away: all of it is movable, and the kernel keeps nothing there.
    """

    about: str
    nodes: tuple
    hmat: bool = False
    cxl: bool = False
    dimm: bool = False


LOCAL = Node(2048, cpus="0-1")
TOPOLOGIES = {
    "one": Topology("one node", (LOCAL,)),
    "flat": Topology("a second node without processors, in the same tier", (LOCAL, Node(1024))),
    "hmat": Topology(
        "a second node without processors, in a slower tier", (LOCAL, Node(1024, latency=250, bandwidth=30)), hmat=True
    ),
    "three": Topology(
        "two nodes without processors, in two slower tiers",
        (LOCAL, Node(1024, latency=250, bandwidth=30), Node(512, latency=700, bandwidth=8)),
        hmat=True,
    ),
    "four": Topology(
        "two nodes with a processor each, and a slower one near each",
        (
            Node(1024, cpus="0", near=0),
            Node(1024, cpus="1", near=1),
            Node(512, near=0, latency=250, bandwidth=30),
            Node(512, near=1, latency=250, bandwidth=30),
        ),
        hmat=True,
    ),
    "dimm": Topology("a module as second node, which can go offline as a whole", (LOCAL, Node(1024)), dimm=True),
    "cxl": Topology("a CXL device with volatile memory, which the kernel onlines", (LOCAL, Node(1024)), cxl=True),
}

# How much further the memory of the other socket is.
ACROSS_NS = 60

# The device appears a moment after its drivers, the node a moment after the region.
ONLINE_CXL = """
wait_for() { tries=0; until [ -e "$1" ]; do sleep 0.2; tries=$((tries + 1)); [ $tries -lt 300 ] || return 1; done; }
modprobe -a cxl_acpi cxl_pci cxl_mem kmem dax_cxl
wait_for /sys/bus/cxl/devices/mem0 || { echo "guest: no CXL device" >&2; exit 125; }
cxl create-region -m -t ram -d decoder0.0 -w 1 mem0 >/run/cxl.log 2>&1 || { cat /run/cxl.log >&2; exit 125; }
wait_for /sys/devices/system/node/node1 || { echo "guest: the CXL memory is not online" >&2; exit 125; }
"""


def setup_script(topology):
    """What the guest does before anything else."""
    return ONLINE_CXL if topology.cxl else ""


def distance(nodes, source, target):
    """As ACPI's SLIT has it: 10 to oneself, 20 to the next."""
    if source == target:
        return 10
    return 20 if nodes[source].near == nodes[target].near else 30


def arguments(topology, cpu_model):
    """QEMU's arguments for processors and memory."""
    nodes = list(topology.nodes)
    machine = "q35"
    total = sum(node.mib for node in nodes)
    found = []
    for number, node in enumerate(nodes):
        # Shared memory: the daemon that serves shared folders maps it too.
        found += ["-object", f"memory-backend-memfd,id=m{number},size={node.mib}M,share=on"]
    if topology.cxl:
        device = nodes[-1].mib
        machine += f",cxl=on,cxl-fmw.0.targets.0=cxl.1,cxl-fmw.0.size={device}M"
        # Linux refuses to change the decoders of CXL below a hypervisor.
        cpu_model += ",hypervisor=off"
        nodes.pop()
        total -= device
        found += ["-device", "pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.1"]
        found += ["-device", "cxl-rp,port=0,bus=cxl.1,id=rp0,chassis=0,slot=2"]
        found += ["-device", f"cxl-type3,bus=rp0,volatile-memdev=m{len(nodes)},id=cxl0"]
        size = f"{total}M,maxmem={total + 4 * device}M,slots=4"
    elif topology.dimm:
        module = nodes[-1].mib
        found += ["-device", f"pc-dimm,memdev=m{len(nodes) - 1},node={len(nodes) - 1},id=dimm"]
        size = f"{total - module}M,maxmem={total}M,slots=1"
    else:
        size = f"{total}M"
    if topology.hmat:
        machine += ",hmat=on"
    for number, node in enumerate(nodes):
        text = f"node,nodeid={number}"
        if not (topology.dimm and node is nodes[-1]):
            text += f",memdev=m{number}"
        if node.cpus:
            text += f",cpus={node.cpus}"
        elif topology.hmat:
            text += f",initiator={node.near}"
        found += ["-numa", text]
    for source in range(len(nodes)):
        for target in range(len(nodes)):
            if source != target:
                found += ["-numa", f"dist,src={source},dst={target},val={distance(nodes, source, target)}"]
    if topology.hmat:
        found += _hmat(nodes)
    return ["-M", machine, "-cpu", cpu_model, "-smp", "2", "-m", size, *found]


def _hmat(nodes):
    """Latency and bandwidth from every node with processors to every node."""
    found = []
    for initiator in (number for number, node in enumerate(nodes) if node.cpus):
        for target, node in enumerate(nodes):
            latency = node.latency + (0 if node.near == nodes[initiator].near else ACROSS_NS)
            common = f"hmat-lb,initiator={initiator},target={target},hierarchy=memory"
            found += ["-numa", f"{common},data-type=access-latency,latency={latency}"]
            found += ["-numa", f"{common},data-type=access-bandwidth,bandwidth={node.bandwidth}G"]
    return found
