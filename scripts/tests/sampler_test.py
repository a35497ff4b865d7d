"""The pure parts of bench/sampler: reading traces, quantiles, verdicts."""

import importlib.machinery
import importlib.util
import os
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def load():
    path = os.path.join(ROOT, "bench", "sampler")
    loader = importlib.machinery.SourceFileLoader("sampler", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("sampler", loader))
    loader.exec_module(module)
    return module


sampler = load()

TRACE = """# elastic-mem trace 1
# context {"run":"r","function":"n/f","container":"c"}
t_us,usage,anon,file,shmem,kernel,limit,high,cpu_us,refault,psi_some_us,ev_high,ev_oom,phase
0,100,10,60,5,25,max,,1,,,,,execution
2000,300,,,,,,,2,,,,,
4000,200,30,70,5,30,,,3,,,,,
14000,90,1,80,2,3,,,4,,,,,exit
# end {"code":0,"peak":310,"oomKills":0}
"""


def a_sample(function, held, reference):
    seen = {"looks": 9, "held": reference, "usage": reference, "counter": reference}
    return {
        "function": function,
        "duration": 0.01,
        "samples": 5,
        "complete": True,
        "held": held,
        "usage": held,
        "counter": reference,
        "reference": seen,
    }


def a_result(peaks, p99=3.0, many=10.0, high=1.005):
    return {
        "peaks": sampler.peak_table(peaks),
        "intervals": {"idle": {"p99": p99}, "loaded": {"p99": p99}},
        "cpu": {"containers": 100, "growing": 1.0, "awake": 0.9, "nap": 0.8, "awake_nap": 0.5, "idle": 0.05, "many": many},
        "effect": (1.0, 0.995, high),
    }


class Traces(unittest.TestCase):
    def setUp(self):
        with tempfile.NamedTemporaryFile("w", suffix=".csv", delete=False) as file:
            file.write(TRACE)
        self.addCleanup(os.unlink, file.name)
        self.trace = sampler.read_trace(file.name)

    def test_a_trace_is_read(self):
        self.assertEqual(self.trace["context"]["container"], "c")
        self.assertEqual(self.trace["end"]["peak"], 310)
        self.assertEqual([sample["usage"] for sample in self.trace["samples"]], [100, 300, 200, 90])
        self.assertEqual(sampler.peak(self.trace), 65)

    def test_the_last_interval_is_not_the_samplers(self):
        self.assertEqual([round(each, 3) for each in sampler.intervals_ms([self.trace])], [2.0, 2.0])

    def test_the_reference_counts_from_the_begin_of_the_run(self):
        begin = sampler.begin_of({"run": "20261126T140711.140009Z-vm-a.b-1"})
        self.assertEqual(begin, 1795702031140009)
        numbers = [[begin - 1, 900, 950, 960], [begin, 10, 20, 960], [begin + 1000, 30, 25, 960]]
        looks = [dict(zip(("at", "held", "usage", "counter"), each)) for each in numbers]
        self.assertEqual(
            sampler.second_opinion(looks, begin), {"looks": 2, "held": 30, "usage": 25, "counter": 960}
        )
        self.assertIsNone(sampler.second_opinion(looks[:1], begin))

    def test_a_quantile_is_a_value(self):
        values = list(range(1, 101))
        self.assertEqual(sampler.quantile(values, 0.5), 50)
        self.assertEqual(sampler.quantile(values, 0.99), 99)
        self.assertEqual(sampler.quantile([7], 0.99), 7)


class Verdicts(unittest.TestCase):
    def missed(self, result):
        return [goal["goal"] for goal in sampler.verdicts(result) if not goal["met"]]

    def test_good_figures_meet_every_goal(self):
        self.assertEqual(self.missed(a_result([a_sample("a", 995, 1000), a_sample("a", 1100, 1000)])), [])

    def test_one_peak_that_is_too_low_is_seen(self):
        whole = 100 * sampler.STOCK
        missed = self.missed(a_result([a_sample("a", whole, whole)] * 199 + [a_sample("a", 0.98 * whole, whole)]))
        self.assertEqual(len(missed), 2)
        self.assertIn("below the reference", missed[0])

    def test_a_small_peak_may_be_a_stock_of_pages_off(self):
        missed = self.missed(a_result([a_sample("a", 980, 1000)]))
        self.assertEqual(len(missed), 1)
        self.assertNotIn("stocks", missed[0])

    def test_the_spike_is_shown_and_not_counted(self):
        result = a_result([a_sample("a", 1000, 1000), a_sample("spike", 10, 1000)])
        self.assertEqual(self.missed(result), [])
        self.assertEqual(len(result["peaks"]), 2)

    def test_a_run_without_a_trace_is_seen(self):
        cut_off = {**a_sample("a", 1000, 1000), "complete": False}
        self.assertIn("complete trace", self.missed(a_result([a_sample("a", 1000, 1000), cut_off]))[0])

    def test_runs_that_the_reference_has_not_seen_are_no_success(self):
        with self.assertRaises(sampler.NotMeasured):
            sampler.peak_table([{**a_sample("a", 1000, 1000), "reference": None}])

    def test_late_samples_cost_and_effect_are_seen(self):
        peaks = [a_sample("a", 1000, 1000)]
        self.assertEqual(len(self.missed(a_result(peaks, p99=5.0))), 1)
        self.assertEqual(len(self.missed(a_result(peaks, p99=11.0))), 2)
        self.assertEqual(len(self.missed(a_result(peaks, many=16.0))), 1)
        self.assertEqual(len(self.missed(a_result(peaks, high=1.02))), 1)

    def test_the_effect_is_a_geometric_mean_with_bounds(self):
        pairs = [{"sampled": 1.02, "plain": 1.0}, {"sampled": 1.0, "plain": 1.02}] * 20
        ratio, low, high = sampler.effect(pairs, 1)
        self.assertAlmostEqual(ratio, 1.0)
        self.assertTrue(0.98 < low < 1.0 < high < 1.02)
        with self.assertRaises(sampler.NotMeasured):
            sampler.effect(pairs[:2], 1)


if __name__ == "__main__":
    unittest.main()
