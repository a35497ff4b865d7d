"""The pure parts of bench/lifecycle: order, statistics, verdicts."""

import importlib.machinery
import importlib.util
import json
import os
import random
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def load():
    path = os.path.join(ROOT, "bench", "lifecycle")
    loader = importlib.machinery.SourceFileLoader("lifecycle", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("lifecycle", loader))
    loader.exec_module(module)
    return module


lifecycle = load()
import bundles  # noqa: E402


def made_up_samples(ratio, rounds=30):
    """Samples of a runtime that takes `ratio` of its peer's time, in rounds of very different load."""
    chance = random.Random(7)
    samples = []
    for number in range(rounds):
        load_factor = chance.choice([1, 1, 1, 3])
        for role, factor in ((lifecycle.OURS, ratio), (lifecycle.PEER, 1.0)):
            cost = 0.04 * factor * load_factor * chance.uniform(0.95, 1.05)
            verbs = dict.fromkeys(("create", "start", "delete"), (cost, cost))
            for configuration in lifecycle.CONFIGURATIONS:
                samples.append(
                    {
                        "round": number,
                        "what": "lifecycle",
                        "configuration": configuration,
                        "runtime": role,
                        "wall": cost,
                        "cpu": cost,
                        "verbs": verbs,
                    }
                )
            verbs = dict.fromkeys(("state", "kill", "delete --force"), (cost, cost))
            samples.append({"round": number, "what": "verbs", "runtime": role, "verbs": verbs})
    return samples


class Order(unittest.TestCase):
    def test_each_round_has_everything_once_with_pairs_together(self):
        for number in range(20):
            order = lifecycle.order(1, number)
            self.assertEqual(len(set(order)), len(order))
            self.assertEqual(len(order), 2 * (len(lifecycle.CONFIGURATIONS) + 1))
            for first, second in zip(order[::2], order[1::2]):
                self.assertEqual(first[0], second[0])

    def test_both_come_first_equally_often(self):
        firsts = [pair for number in range(20) for pair in lifecycle.order(1, number)[::2]]
        for group in (*lifecycle.CONFIGURATIONS, "verbs"):
            self.assertEqual(firsts.count((group, lifecycle.OURS)), 10)

    def test_a_seed_gives_the_same_order_again(self):
        self.assertEqual(lifecycle.order(5, 3), lifecycle.order(5, 3))
        self.assertNotEqual([lifecycle.order(5, n) for n in range(5)], [lifecycle.order(6, n) for n in range(5)])


class Statistics(unittest.TestCase):
    def test_the_interval_holds_the_true_ratio(self):
        for row in lifecycle.rows(made_up_samples(0.5), seed=1):
            self.assertLess(row["low"], 0.5 * 1.02, row)
            self.assertGreater(row["high"], 0.5 * 0.98, row)
            self.assertLessEqual(row["low"], row["ratio"])
            self.assertLessEqual(row["ratio"], row["high"])

    def test_every_configuration_and_verb_has_a_row(self):
        found = {(row["kind"], row["name"], row["measure"]) for row in lifecycle.rows(made_up_samples(1), seed=1)}
        self.assertEqual(len(found), 2 * (len(lifecycle.CONFIGURATIONS) + len(lifecycle.VERBS)))

    def test_too_few_rounds_are_no_measurement(self):
        with self.assertRaises(lifecycle.NotMeasured):
            lifecycle.rows(made_up_samples(1, rounds=lifecycle.FEWEST_ROUNDS - 1), seed=1)


class Verdicts(unittest.TestCase):
    def verdicts(self, ratio):
        return lifecycle.verdicts(lifecycle.rows(made_up_samples(ratio), seed=1))

    def test_a_fast_runtime_meets_all_goals_for_certain(self):
        self.assertTrue(all(goal["met"] and goal["certain"] for goal in self.verdicts(0.2)))

    def test_a_slow_runtime_misses_all_goals_for_certain(self):
        self.assertTrue(all(not goal["met"] and goal["certain"] for goal in self.verdicts(1.5)))


class Profile(unittest.TestCase):
    def test_it_is_large_and_names_nothing_twice(self):
        with open(bundles.SECCOMP, encoding="utf-8") as file:
            profile = json.load(file)
        names = profile["syscalls"][0]["names"]
        self.assertGreater(len(names), 340)
        self.assertEqual(len(names), len(set(names)))


if __name__ == "__main__":
    unittest.main()
