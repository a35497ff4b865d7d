"""The pure parts of the demo: demo/curves.py and demo/table.py."""

import os
import sys
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "demo"))

import curves  # noqa: E402
import table  # noqa: E402

MIB = curves.MIB
HEAD = "# elastic-mem trace 1\n# context {}\nt_us,usage,limit,high,cpu_us\n"


class Figures(unittest.TestCase):
    def of(self, *rows, end='# end {"code":0,"oomKills":1}\n'):
        return curves.figures(HEAD + "".join(f"{row}\n" for row in rows) + end, 1024 * MIB)

    def test_a_value_holds_until_the_next_one(self):
        f = self.of(f"0,{100 * MIB},,,500000", f"1000000,{300 * MIB},,,", "2000000,,,,2500000")
        self.assertEqual(f.peak, 300 * MIB)
        self.assertAlmostEqual(f.duration_s, 2)
        self.assertAlmostEqual(f.cpu_s, 2)
        self.assertAlmostEqual(f.used_gib_s, 400 / 1024)
        self.assertEqual(f.kills, 1)

    def test_the_lower_limit_counts_and_without_one_what_is_declared(self):
        f = self.of(f"0,1,max,{512 * MIB},0", f"1000000,1,{256 * MIB},,0", "2000000,1,max,max,0", "3000000,1,,,0")
        self.assertAlmostEqual(f.granted_gib_s, 0.5 + 0.25 + 1)

    def test_the_kernel_sees_peaks_between_samples(self):
        f = self.of("0,5,,,0", "1,6,,,0", end='# end {"peak":9,"oomKills":0}\n')
        self.assertEqual(f.peak, 9)

    def test_what_was_cut_off_says_nothing(self):
        for rows, end in (((), "# end {}\n"), (("0,1,,,0", "1,1,,,0"), "")):
            with self.assertRaises(ValueError):
                self.of(*rows, end=end)


class Table(unittest.TestCase):
    def run_of(self, seconds, cpu, peak, granted, kills=0):
        f = curves.Figures(seconds, cpu, peak * MIB, granted / 2, granted, kills)
        return table.Run(f, failure=None)

    def test_a_row_compares_medians(self):
        observed = [self.run_of(1, 1.0, 100, 0.5), self.run_of(1, 1.2, 128, 0.5), self.run_of(1, 9, 90, 0.5)]
        elastic = [self.run_of(2, 1.26, 127, 0.125), self.run_of(2, 0.1, 10, 0.125), self.run_of(2, 7, 10, 0.125)]
        row = table.row("f", observed, elastic, 512 * MIB)
        # Static: 128 MiB for 2 s; declared: 512 MiB for 2 s.
        self.assertEqual(row, ["f", "127 MiB", "128 MiB", "0.125", "0.062", "50 %", "88 %", "+5 %", "0", "0 of 6"])

    def test_kills_and_failures_are_counted_in_all_runs(self):
        good = self.run_of(1, 1, 100, 0.5)
        bad = table.Run(self.run_of(1, 1, 100, 0.5, kills=2).figures, failure="it said so")
        row = table.row("f", [good], [bad, good], MIB)
        self.assertEqual(row[-2:], ["2", "1 of 3"])

    def test_columns_line_up(self):
        lines = table.lines([["a", "10"], ["long", "5"]])
        self.assertEqual(lines, ["a     10", "long   5"])


if __name__ == "__main__":
    unittest.main()
