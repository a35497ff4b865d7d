"""The pure parts of bench/cost: the program's path, checks of what it printed, statistics, verdicts."""

import importlib.machinery
import importlib.util
import os
import random
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def load():
    path = os.path.join(ROOT, "bench", "cost")
    loader = importlib.machinery.SourceFileLoader("cost", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("cost", loader))
    loader.exec_module(module)
    return module


cost = load()


def made_up_samples(seconds, rounds=10):
    chance = random.Random(7)
    samples = []
    for number in range(rounds):
        for role, cpu, gross in ((cost.OURS, seconds, "900.0001"), (cost.PEER, 0.25, "900.0002")):
            cpu *= chance.uniform(0.97, 1.03)
            samples.append({"round": number, "role": role, "cpu": cpu, "wall": cpu, "gross": gross, "bills": 12_000})
    return samples


ERROR = {"bills": 12_000}


class Program(unittest.TestCase):
    def test_its_path_is_taken_from_what_cargo_printed(self):
        lines = [
            '{"reason":"compiler-artifact","target":{"name":"elastic_mem"},"executable":null}',
            "a warning",
            '{"reason":"compiler-artifact","target":{"name":"cost"},"executable":"/x/cost-1"}',
            '{"reason":"build-finished","success":true}',
        ]
        self.assertEqual(cost.executable_of("\n".join(lines)), "/x/cost-1")
        self.assertIsNone(cost.executable_of("\n".join(lines[:2])))


class Bills(unittest.TestCase):
    def refused(self, samples, error=None):
        with self.assertRaises(cost.NotMeasured):
            cost.check_bills(samples, error or ERROR, 12_000)

    def test_bills_of_both_that_agree_are_accepted(self):
        cost.check_bills(made_up_samples(3), ERROR, 12_000)

    def test_missing_bills_are_no_measurement(self):
        samples = made_up_samples(3)
        samples[3]["bills"] -= 1
        self.refused(samples)
        self.refused(made_up_samples(3), {"bills": 1})

    def test_sums_that_differ_are_no_measurement(self):
        samples = made_up_samples(3)
        samples[2]["gross"] = "900.0003"
        self.refused(samples)
        self.refused([{**s, "gross": "901"} if s["role"] == cost.PEER else s for s in made_up_samples(3)])


class Verdicts(unittest.TestCase):
    def verdict(self, seconds, runs=1_000_000):
        (found,) = cost.verdicts(cost.rows(made_up_samples(seconds), seed=1), runs)
        return found["met"], found["certain"]

    def test_the_goal_is_five_seconds_for_a_million_runs(self):
        self.assertEqual(self.verdict(3), (True, True))
        self.assertEqual(self.verdict(8), (False, True))
        self.assertFalse(self.verdict(5)[1])

    def test_fewer_runs_have_less_time(self):
        self.assertEqual(self.verdict(3, runs=500_000), (False, True))

    def test_the_ratio_lies_in_its_interval(self):
        for row in cost.rows(made_up_samples(3), seed=1):
            self.assertLessEqual(row["low"], row["ratio"])
            self.assertLessEqual(row["ratio"], row["high"])
            self.assertAlmostEqual(row["ratio"], 12, delta=0.5)

    def test_too_few_rounds_are_no_measurement(self):
        with self.assertRaises(cost.NotMeasured):
            cost.rows(made_up_samples(3, rounds=cost.FEWEST_ROUNDS - 1), seed=1)


if __name__ == "__main__":
    unittest.main()
