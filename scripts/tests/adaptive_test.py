"""The pure parts of bench/adaptive: what violates a bound, which cases count, verdicts."""

import importlib.machinery
import importlib.util
import os
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def load():
    path = os.path.join(ROOT, "bench", "adaptive")
    loader = importlib.machinery.SourceFileLoader("adaptive", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("adaptive", loader))
    loader.exec_module(module)
    return module


adaptive = load()


def case(policy, over, local=1.0, bound=1.1, number=0):
    return {
        "round": number,
        "function": "f",
        "input": "i",
        "bound": bound,
        "policy": policy,
        "requests": 2000,
        "over": over,
        "local": local,
    }


class Bounds(unittest.TestCase):
    def test_five_of_a_hundred_may_be_over_it_and_a_few_more_by_chance(self):
        self.assertFalse(adaptive.violates(case("adaptive", 100)))
        self.assertFalse(adaptive.violates(case("adaptive", 130)))
        self.assertTrue(adaptive.violates(case("adaptive", 131)))

    def test_what_local_memory_cannot_meet_does_not_count(self):
        cases = [case("local", 10), case("remote", 900), case("local", 900, bound=0.9), case("remote", 2000, bound=0.9)]
        policies, left_out = adaptive.judge(cases)
        self.assertEqual([c["over"] for c in policies["remote"]], [900])
        self.assertEqual(left_out, 1)
        with self.assertRaises(adaptive.NotMeasured):
            adaptive.judge(cases[2:])


class Verdicts(unittest.TestCase):
    def goals(self, over, local):
        policies = (adaptive.LOCAL, adaptive.ADAPTIVE, adaptive.LEARNING)
        cases = [case(p, over if p == adaptive.ADAPTIVE else 0, local) for p in policies]
        table = [adaptive.row(p, of_it) for p, of_it in adaptive.judge(cases)[0].items()]
        return [goal["met"] for goal in adaptive.verdicts(table)]

    def test_goals_are_met_and_missed(self):
        self.assertEqual(self.goals(0, 0.5), [True, True, True])
        self.assertEqual(self.goals(500, 0.5), [False, True, True])
        self.assertEqual(self.goals(0, 0.8), [True, True, False])


class Curves(unittest.TestCase):
    def test_each_line_has_its_figures(self):
        with open(adaptive.CURVES, encoding="utf-8") as file:
            lines = [line.strip().split(",") for line in file if not line.startswith("#")]
        self.assertEqual(lines[0], ["function", "input", "slowdown", "memory_mib", "latencies_s"])
        self.assertEqual({line[0] for line in lines[1:]}, {"dna", "thumbnail", "recognition", "pagerank"})
        for _, _, slowdown, memory, latencies in lines[1:]:
            self.assertTrue(0 <= float(slowdown) <= 2.85 and int(memory) > 0)
            self.assertGreaterEqual(len([float(latency) for latency in latencies.split()]), 3)


if __name__ == "__main__":
    unittest.main()
