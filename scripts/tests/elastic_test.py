"""The pure parts of bench/elastic: areas of traces, ways to grant, harm, tables, verdicts."""

import json
import os
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path += [os.path.join(ROOT, "bench", "lib"), os.path.join(ROOT, "scripts", "lib")]

import grants
from measure import NotMeasured

MIB = 1 << 20
COLUMNS = ("t_us", "usage", "anon", "shmem", "kernel", "limit", "high")


def rows(*lines):
    return [dict(zip(COLUMNS, line.split(","))) for line in lines]


def a_run(kind, number, **more):
    run = {
        "workload": "w",
        "own": False,
        "kind": kind,
        "round": number,
        "status": 0,
        "digest": "d",
        "met": 0,
        "oom_kills": 0,
        "harm": [],
        "cpu": 1.0,
        "wall": 1.0,
        "seconds": 1.0,
        "peak": 200 * MIB,
        "used": 100.0 * MIB,
        "held": 90.0 * MIB,
        "granted": 512.0 * MIB,
        "distance": 15 * MIB,
        "at_once": 4 * MIB,
        "made": 0.03,
    }
    return run | more


class Areas(unittest.TestCase):
    def test_a_sample_holds_until_the_next_one_and_an_empty_cell_keeps_its_value(self):
        area = grants.areas(rows("0,100,50,10,5,400,", "1000000,200,,,,300,", "3000000,0,0,0,0,,"), 1000)
        self.assertEqual(area["seconds"], 3)
        self.assertEqual(area["granted"], 400 + 2 * 300)
        self.assertEqual(area["used"], 100 + 2 * 200)
        self.assertEqual(area["held"], 3 * 65)
        self.assertEqual(area["lowest"], 300)
        # 300 for a second, 100 for two.
        self.assertEqual(area["distance"], 100)

    def test_growth_at_once_is_what_comes_within_four_milliseconds(self):
        # 30 within 4 ms; the fall to 5 and the slow rise by 40 after it are none.
        lines = ("0,10,,,,,", "2000,25,,,,,", "4000,40,,,,,", "5000,5,,,,,", "15000,20,,,,,", "25000,45,,,,,")
        self.assertEqual(grants.areas(rows(*lines[:5]), 1000)["at_once"], 30)
        # What came between two looks came at once.
        self.assertEqual(grants.areas(rows(*lines), 1000)["at_once"], 30)
        self.assertEqual(grants.areas(rows("0,1,,,,,", "9000,90,,,,,"), 1000)["at_once"], 89)

    def test_what_is_granted_is_the_lower_limit_and_at_most_the_ceiling(self):
        self.assertEqual(grants.areas(rows("0,1,1,0,0,max,max", "1000000,1,,,,,"), 1000)["granted"], 1000)
        self.assertEqual(grants.areas(rows("0,1,1,0,0,max,70", "1000000,1,,,,,"), 1000)["granted"], 70)
        self.assertEqual(grants.areas(rows("0,1,1,0,0,9000,", "1000000,1,,,,,"), 1000)["granted"], 1000)

    def test_one_sample_is_no_trace(self):
        with self.assertRaises(NotMeasured):
            grants.areas(rows("0,1,1,0,0,max,max"), 1000)

    def test_another_reader_counts_in_the_time_of_the_trace_alone(self):
        seen = ((100_000, 1000), (500_000, 300), (1_500_000, 200), (9_000_000, -1))
        looks = [{"at": at, "limit": limit} for at, limit in seen]
        # The limit of 300 holds from before the begin until 1.5 s, that of 200 to the end at 3 s.
        self.assertAlmostEqual(grants.area_of_looks(looks, 1_000_000, 2, 1000), 0.5 * 300 + 1.5 * 200)
        # What was in force before it was lowered counts as lowered; a raise to the ceiling counts as it is.
        seen = ((1_000_000, 1000), (1_500_000, 300), (2_000_000, -1))
        looks = [{"at": at, "limit": limit} for at, limit in seen]
        self.assertAlmostEqual(grants.area_of_looks(looks, 1_000_000, 2, 1000), 300 + 1000)
        self.assertAlmostEqual(grants.area_of_looks([], 1_000_000, 2, 1000), 2000)


class Ways(unittest.TestCase):
    def test_steps_are_those_of_providers(self):
        grant = {peak: grants.computed_grant("steps", peak * MIB) / MIB for peak in (1, 128, 129, 192, 193)}
        self.assertEqual(grant, {1: 128, 128: 128, 129: 192, 192: 192, 193: 256})
        self.assertEqual(grants.computed_grant("powers", 257 * MIB), 512 * MIB)
        self.assertEqual(grants.computed_grant("exact", 257), 257)


class Harm(unittest.TestCase):
    def harm(self, **more):
        return grants.harm_of(a_run("elastic", 0, **more), "d")

    def test_each_kind_of_harm_has_its_name(self):
        self.assertEqual(self.harm(), [])
        self.assertEqual(self.harm(status=137), ["kill"])
        self.assertEqual(self.harm(status=1, oom_kills=1), ["kill"])
        self.assertEqual(self.harm(status=1), ["failed call"])
        self.assertEqual(self.harm(status=None, met=3), ["hang", "stall"])
        self.assertEqual(self.harm(digest="e"), ["output"])
        self.assertEqual(self.harm(met=1), ["stall"])


class Tables(unittest.TestCase):
    def result(self, **more):
        runs = []
        for number in range(10):
            runs += [a_run("plain", number), a_run("elastic", number, **({"granted": 115.0 * MIB} | more))]
        for run in runs:
            run["harm"] = grants.harm_of(run, "d")
        rows = grants.table(runs, ("plain", "elastic"))
        return rows, {
            "harm": grants.harm_table(runs),
            "seen": 0.0,
            "means": grants.means(rows, ("exact", "elastic")),
            "effect": {"elastic": {"cpu": grants.effect(runs, "elastic", "cpu", 1)}},
            "made": {"elastic": grants.later(runs, "elastic", 1)},
            "raise": 0.01,
        }

    def missed(self, **more):
        return [goal["goal"] for goal in grants.verdicts(*self.result(**more)) if not goal["met"]]

    def test_a_table_has_the_ratios_of_all_ways(self):
        rows, result = self.result()
        self.assertEqual(rows[0]["ratio"], {"steps": 2.56, "powers": 2.56, "exact": 2.0, "elastic": 1.15})
        self.assertEqual(rows[0]["distance"]["elastic"], 15 * MIB)
        self.assertAlmostEqual(result["means"]["over 0.8 s and 100 MB"]["elastic"], 1.15)
        self.assertNotIn("small", result["means"])

    def test_good_figures_meet_every_goal(self):
        self.assertEqual(self.missed(), [])

    def test_each_goal_can_be_missed(self):
        self.assertIn("granted / used, over 100 MB <= 1.35", self.missed(granted=140.0 * MIB))
        self.assertIn("upper bound of CPU, elastic / plain, 10 pairs <= 1.02", self.missed(cpu=1.03))
        self.assertIn("Create and Start, elastic - plain, ms <= 1", self.missed(made=0.0312))
        self.assertEqual(self.missed(met=1), ["stalls in 10 tuned runs <= 0"])
        self.assertEqual(self.missed(status=137), ["kills in 10 tuned runs <= 0"])
        self.assertEqual(self.missed(digest="e"), ["other outputs in 10 tuned runs <= 0"])

    def test_a_small_function_has_room_for_its_pad_or_for_what_it_grows_by_at_once(self):
        row = self.result()[0][0] | {"peak": 50 * MIB}

        def missed(**more):
            goals = grants.verdicts([row | more], self.result()[1])
            return any(goal["goal"].startswith("distance") and not goal["met"] for goal in goals)

        self.assertFalse(missed(distance={"elastic": 8 * MIB}))
        self.assertTrue(missed(distance={"elastic": 9 * MIB}))
        self.assertFalse(missed(distance={"elastic": 12.5 * MIB}, at_once=10 * MIB))
        self.assertTrue(missed(distance={"elastic": 14 * MIB}, at_once=10 * MIB))

    def test_what_takes_longest_does_not_hide_the_rest(self):
        self.assertEqual(grants.worst_but_one_percent([0.001] * 199 + [0.5]), 1.0)
        self.assertEqual(grants.worst_but_one_percent([0.001] * 97 + [0.5] * 3), 500.0)

    def test_pairs_are_of_one_round_and_functions_of_our_own_do_not_count(self):
        runs = [a_run("plain", n) for n in range(6)] + [a_run("elastic", n, cpu=2.0) for n in range(5)]
        effect = grants.effect(runs, "elastic", "cpu", 1)
        self.assertEqual(effect["pairs"], 5)
        self.assertAlmostEqual(effect["ratio"], 2.0)
        with self.assertRaises(NotMeasured):
            grants.effect([run | {"own": True} for run in runs], "elastic", "cpu", 1)

    def test_runs_of_earlier_calls_are_taken_in_only_if_they_can_be(self):
        terms = {"build": "b", "learn": 4}
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "all.json")
            self.assertEqual(grants.earlier(path, terms), ([], []))
            runs = [a_run("plain", 0)]
            with open(path, "w", encoding="utf-8") as file:
                json.dump({"terms": terms, "runs": runs, "calls": [{"load": 0.1}]}, file)
            self.assertEqual(grants.earlier(path, terms), (runs, [{"load": 0.1}]))
            with self.assertRaisesRegex(NotMeasured, "learn was 4, is 5"):
                grants.earlier(path, terms | {"learn": 5})
            with open(path, "w", encoding="utf-8") as file:
                file.write("[]")
            with self.assertRaisesRegex(NotMeasured, "build was None"):
                grants.earlier(path, terms)
            with open(path, "w", encoding="utf-8") as file:
                file.write('{"terms"')
            with self.assertRaisesRegex(NotMeasured, "all.json"):
                grants.earlier(path, terms)


if __name__ == "__main__":
    unittest.main()
