"""The pure parts of the test bed: machines, archives, scripts of tests."""

import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))

from vm import latency, machine, session, suites, topology  # noqa: E402
from vm.image import Cpio, content_hash, inventory, split_name  # noqa: E402


def numa(name):
    words = topology.arguments(topology.TOPOLOGIES[name], "cpu")
    return [words[at + 1] for at, word in enumerate(words) if word == "-numa"]


class TopologyTest(unittest.TestCase):
    def test_every_pair_of_nodes_has_a_distance(self):
        for name, kind in topology.TOPOLOGIES.items():
            count = len(kind.nodes) - kind.cxl
            distances = [line for line in numa(name) if line.startswith("dist")]
            self.assertEqual(len(distances), count * (count - 1), name)

    def test_tables_tell_latency_and_bandwidth_from_every_processor_to_every_node(self):
        for name, kind in topology.TOPOLOGIES.items():
            lines = [line for line in numa(name) if line.startswith("hmat-lb")]
            initiators = sum(1 for node in kind.nodes if node.cpus)
            self.assertEqual(len(lines), 2 * initiators * len(kind.nodes) if kind.hmat else 0, name)

    def test_a_node_without_processors_names_a_near_one(self):
        self.assertIn("node,nodeid=1,memdev=m1,initiator=0", numa("hmat"))
        self.assertIn("node,nodeid=3,memdev=m3,initiator=1", numa("four"))

    def test_the_memory_of_a_device_is_no_node_at_first(self):
        words = topology.arguments(topology.TOPOLOGIES["cxl"], "cpu")
        self.assertIn("2048M,maxmem=6144M,slots=4", words)
        self.assertIn("cxl-type3,bus=rp0,volatile-memdev=m1,id=cxl0", words)


class LatencyTest(unittest.TestCase):
    def test_far_nodes_begin_where_the_low_memory_ends(self):
        ranges = latency.far_ranges(topology.TOPOLOGIES["three"], 300)
        self.assertEqual(ranges, [(4 << 30, (5 << 30) - 1, 300), (5 << 30, (5 << 30) + (512 << 20) - 1, 840)])
        self.assertEqual(len(latency.far_ranges(topology.TOPOLOGIES["four"], 300)), 2)
        self.assertEqual(latency.far_ranges(topology.TOPOLOGIES["one"], 300), [])


class MachineTest(unittest.TestCase):
    def test_names_of_kinds_differ(self):
        kinds = [
            machine.Options(),
            machine.Options(kernel="7"),
            machine.Options(systemd=True),
            machine.Options(swap=64),
            machine.Options(kernel="7", swap=64, zswap=True),
            machine.Options(latency=300),
        ]
        self.assertEqual(len({kind.name() for kind in kinds}), len(kinds))

    def test_a_script_is_one_argument_and_a_command_several(self):
        self.assertEqual(session.as_script(["echo 'a b'"]), "echo 'a b'")
        self.assertEqual(session.as_script(["echo", "a b"]), "echo 'a b'")


class ImageTest(unittest.TestCase):
    def test_an_archive_has_the_headers_that_the_kernel_reads(self):
        archive = Cpio()
        archive.folder("bin")
        archive.link("bin/sh", "busybox")
        with tempfile.NamedTemporaryFile() as file:
            archive.write(file.name)
            data = file.read()
        self.assertEqual(len(data) % 4, 0)
        self.assertEqual(data.count(b"070701"), 3)
        # Mode, and the length of the link's target.
        self.assertIn(b"0000a1ff", data)
        self.assertIn(b"bin/sh\0", data)
        self.assertIn(b"TRAILER!!!\0", data)

    def test_damage_shows_in_the_inventory(self):
        with tempfile.TemporaryDirectory() as folder:
            with open(f"{folder}/rootfs.ext4", "wb") as file:
                file.write(b"12345")
            before = inventory(folder)
            with open(f"{folder}/rootfs.ext4", "ab") as file:
                file.truncate(3)
            self.assertNotEqual(inventory(folder), before)
            os.makedirs(f"{folder}/snapshots")
            after = inventory(folder)
            with open(f"{folder}/snapshots/ram", "wb"):
                pass
            self.assertEqual(inventory(folder), after)

    def test_versions_come_from_names_of_files(self):
        self.assertEqual(split_name("/x/runc_1.1_amd64.deb"), ("runc", "1.1"))
        self.assertEqual(split_name("a_1%3a2_all.deb"), ("a", "1:2"))

    def test_the_hash_is_the_same_twice(self):
        self.assertEqual(content_hash(), content_hash())
        self.assertEqual(len(content_hash()), 16)


class SuitesTest(unittest.TestCase):
    def test_filters_of_a_suite_go_together(self):
        groups = suites.groups_of(["integration:limits::", "system", "integration:pause::"])
        self.assertEqual(groups[0], suites.Group("integration", ("limits::", "pause::")))
        self.assertEqual(groups[1], suites.Group("system"))

    def test_the_guest_gets_the_engines_of_its_tests(self):
        self.assertEqual(suites.engines_of([suites.containerd("1_7", ("hello",))]), ["containerd-1.7"])
        self.assertEqual(suites.engines_of([suites.DOCKER]), ["containerd-2.1", "docker-28"])
        self.assertEqual(suites.engines_of([suites.Group("engines", ("hello",))]), sorted(suites.ENGINES))
        self.assertEqual(suites.engines_of([suites.NODES]), [])

    def test_no_group_runs_twice_in_a_kind_of_guest(self):
        for name, stops in suites.SUITES.items():
            runs = [(stop.options, group) for stop in stops for group in stop.groups]
            self.assertEqual(len(set(runs)), len(runs), name)

    def test_ci_is_a_part_of_full(self):
        self.assertLessEqual(set(suites.SUITES["ci"]), set(suites.SUITES["full"]))

    def test_a_failed_group_fails_the_script_and_a_filter_without_tests_too(self):
        with tempfile.TemporaryDirectory() as folder:
            for says, code, wanted in (
                ("test result: ok. 3 passed; 0 failed", 0, 0),
                ("test result: FAILED. 2 passed; 1 failed", 101, 1),
                ("test result: ok. 0 passed; 0 failed", 0, 1),
                ("killed", 137, 1),
            ):
                program = f"{folder}/program"
                with open(program, "w", encoding="utf-8") as file:
                    file.write(f"#!/bin/sh\necho '{says}'\nexit {code}\n")
                os.chmod(program, 0o755)
                script = suites.script_of([suites.Group("system")], {"system": program})
                script = script.replace("/run/", f"{folder}/").replace("/var/lib/tests", folder)
                script = script.replace(f"cp {program}", "true #")
                script = script.replace(f"{folder}/system --", f"{program} --")
                self.assertEqual(os.waitstatus_to_exitcode(os.system(f"({script}\n) >/dev/null")), wanted, says)


if __name__ == "__main__":
    unittest.main()
