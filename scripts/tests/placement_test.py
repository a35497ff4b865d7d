"""Tests of the pure parts of bench/placement."""

import os
import random
import sys
import unittest

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.append(os.path.join(ROOT, "bench", "lib"))

import places


def run_with(local, remote, stage="transform"):
    placement = {
        "nodes": [{"node": 0, "anon": local, "isLocal": True}, {"node": 2, "anon": remote, "isLocal": False}],
    }
    touches = {node: count for node, count in (("0", local), ("2", remote)) if count}
    return {"stages": [{"stage": stage, "touches": touches}], "digest": "1", "placement": placement}


class Places(unittest.TestCase):
    def test_an_answer_is_read_whatever_is_between(self):
        answer = (
            '{"stage":"read","touches":{"0":3}}\nwarning: something\n{"stage":"end","digest":"ab"}\n'
            'PLACEMENT {"nodes": []}\n'
        )
        found = places.parse_answer(answer)
        self.assertEqual(found["digest"], "ab")
        self.assertEqual(found["stages"], [{"stage": "read", "touches": {"0": 3}}])

    def test_a_run_that_failed_is_none(self):
        for answer in ("", '{"stage":"end","digest":"ab"}\n', "PLACEMENT {}\n", '{"stage":"read","touches":{"0":3}}\nPLACEMENT {}\n'):
            with self.assertRaises(ValueError):
                places.parse_answer(answer)

    def test_a_share_is_that_of_the_nodes(self):
        self.assertEqual(places.split_of(run_with(3, 1)), (3, 1, 0.75))
        self.assertEqual(places.touched(run_with(3, 1)), 0.75)

    def test_all_remote_takes_what_was_published(self):
        for function, slower in (("dna", 1.135), ("thumbnail", 1.0), ("pagerank", 1.445)):
            self.assertAlmostEqual(places.model_of(function, run_with(0, 8)), slower)
            self.assertAlmostEqual(places.model_of(function, run_with(8, 0)), 1.0)
        self.assertAlmostEqual(places.model_of("recognition", run_with(0, 8, "inference")), 3.85)
        self.assertAlmostEqual(places.model_of("recognition", run_with(0, 8, "preprocess")), 1.0)

    def test_latencies_vary_as_recorded(self):
        found = places.latencies(([0.5, 1.0, 2.0], 10), 2, random.Random(1), 1000)
        self.assertTrue(all(10 <= latency <= 40 for latency in found))
        self.assertGreater(max(found), 35)

    def test_recorded_latencies_are_read(self):
        recorded = places.read_recorded(os.path.join(ROOT, "bench", "data", "remote.csv"))
        self.assertEqual(set(recorded), set(places.FUNCTIONS))
        for shares, mean in recorded.values():
            self.assertEqual(shares, sorted(shares))
            self.assertGreater(mean, 0)

    def test_a_profile_has_its_ratios_in_order(self):
        profile = places.known("dna", {1.0: (run_with(4, 0), [0.5]), 0.0: (run_with(0, 4), [0.75])})
        points = profile["placed"]["*"]
        self.assertEqual([point["ratio"] for point in points], [0.0, 1.0])
        self.assertEqual(points[0]["latenciesUs"], [750000])


if __name__ == "__main__":
    unittest.main()
