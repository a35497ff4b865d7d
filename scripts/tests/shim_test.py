"""The pure parts of bench/shim: the protocol, statistics, verdicts."""

import importlib.machinery
import importlib.util
import os
import random
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def load():
    path = os.path.join(ROOT, "bench", "shim")
    loader = importlib.machinery.SourceFileLoader("shim", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("shim", loader))
    loader.exec_module(module)
    return module


shim = load()
import measure  # noqa: E402
import ttrpc  # noqa: E402


class Protobuf(unittest.TestCase):
    def test_the_examples_of_its_documentation(self):
        self.assertEqual(ttrpc.encode([(1, 150)]), bytes.fromhex("089601"))
        self.assertEqual(ttrpc.encode([(2, "testing")]), bytes.fromhex("120774657374696e67"))
        self.assertEqual(ttrpc.encode([(3, [(1, 150)])]), bytes.fromhex("1a03089601"))

    def test_what_is_encoded_is_decoded(self):
        message = [(1, "id"), (3, [(1, "bind"), (4, "a"), (4, "b")]), (5, 1 << 40), (6, 0), (7, "")]
        fields = ttrpc.decode(ttrpc.encode(message))
        self.assertEqual(sorted(fields), [1, 3, 5])  # defaults are not sent
        self.assertEqual(fields[1], [b"id"])
        self.assertEqual(ttrpc.decode(fields[3][0]), {1: [b"bind"], 4: [b"a", b"b"]})
        self.assertEqual(fields[5], [1 << 40])

    def test_unknown_kinds_of_fields_are_read_over(self):
        self.assertEqual(ttrpc.decode(b"\x09" + bytes(8) + b"\x15" + bytes(4) + b"\x18\x07")[3], [7])

    def test_a_broken_message_is_an_error(self):
        for data in (b"\x08", b"\x08\x80", b"\x12\x05ab", b"\x0b"):
            with self.assertRaises(ValueError):
                ttrpc.decode(data)


class Growth(unittest.TestCase):
    def test_a_leak_is_seen_through_noise(self):
        chance = random.Random(3)
        found, low, high = measure.slope_interval([4000 + 4 * n + chance.gauss(0, 20) for n in range(40)], seed=1)
        self.assertTrue(low < 4 < high, (found, low, high))
        self.assertGreater(low, 1)

    def test_no_growth_is_none(self):
        self.assertEqual(measure.slope_interval([17] * 40, seed=1), (0, 0, 0))
        chance = random.Random(3)
        _, low, high = measure.slope_interval([4000 + chance.gauss(0, 20) for _ in range(40)], seed=1)
        self.assertTrue(low < 0 < high, (low, high))

    def test_few_values_are_no_measurement(self):
        with self.assertRaises(measure.NotMeasured):
            measure.slope_interval([1] * 10, seed=1)


def made_up_samples(ratio, growth):
    """Samples of a shim that takes `ratio` of its peer's memory and time and grows by KiB per container."""
    chance = random.Random(7)
    samples = {"idle": [], "many": [], "ctr": [], "replay": [], "growth": {}}
    for role, factor in ((shim.OURS, ratio), (shim.PEER, 1.0)):
        for number in range(20):
            noise = chance.uniform(0.98, 1.02)
            idle = {name: 12000 * factor * noise for name in shim.IDLE} | {"threads": round(10 * factor)}
            for kind in ("idle", "many"):
                samples[kind].append({"round": number, "role": role, **idle})
            cost = {"wall": 0.1 * factor * noise, "cpu": 0.1 * factor * noise}
            samples["ctr"].append({"round": number, "role": role, **cost})
            phases = dict.fromkeys(shim.PHASES, 0.02 * factor * noise)
            samples["replay"].append({"round": number, "role": role, **cost, "phases": phases})
        samples["growth"][role] = [{"pss_anon": 4000 + growth * n, "descriptors": 20} for n in range(50)]
    return samples


class Verdicts(unittest.TestCase):
    def verdicts(self, ratio, growth):
        samples = made_up_samples(ratio, growth)
        return shim.verdicts(shim.rows(samples, 1), shim.growth_rows(samples, 1))

    def test_a_small_fast_shim_meets_all_goals_for_certain(self):
        self.assertTrue(all(goal["met"] and goal["certain"] for goal in self.verdicts(0.2, 0)))

    def test_a_large_slow_shim_misses_them(self):
        missed = [goal for goal in self.verdicts(1.5, 5) if not goal["met"] and goal["certain"]]
        self.assertEqual(len(missed), 6)  # all but the one on descriptors

    def test_every_quantity_has_a_row(self):
        rows = shim.rows(made_up_samples(1, 0), 1)
        self.assertEqual(len(rows), len(shim.IDLE) + 1 + 4 + len(shim.PHASES))
        for row in rows:
            self.assertLessEqual(row["low"], row["ratio"])
            self.assertLessEqual(row["ratio"], row["high"])


if __name__ == "__main__":
    unittest.main()
