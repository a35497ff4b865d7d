"""The pure parts of demo/memory.py."""

import io
import os
import sys
import tempfile
import unittest
import xml.dom.minidom

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "demo"))

import memory  # noqa: E402
import cgroups  # noqa: E402

MIB = memory.MIB


def ramp():
    """100 MiB for 1 s, 300 MiB for 1 s; anonymous memory is two fifths of it."""
    return [
        memory.Sample(t * 1000, size * MIB, size * MIB * 2 // 5, None)
        for t, size in [*((t, 100) for t in range(0, 1000, 10)), *((t, 300) for t in range(1000, 2001, 10))]
    ]


class Figures(unittest.TestCase):
    def test_a_sample_holds_until_the_next_one(self):
        f = memory.figures(ramp(), 512 * MIB)
        self.assertEqual(f.peak, 300 * MIB)
        self.assertEqual(f.anon_peak, 120 * MIB)
        self.assertAlmostEqual(f.mean / MIB, 200)
        self.assertAlmostEqual(f.waste, 1 - 200 / 512)
        self.assertAlmostEqual(f.duration_s, 2)
        self.assertAlmostEqual(f.period_ms, 10)

    def test_one_sample_says_nothing(self):
        with self.assertRaises(ValueError):
            memory.figures(ramp()[:1], MIB)


class Mounts(unittest.TestCase):
    V1 = "30 25 0:26 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n"
    V2 = "31 25 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
    UNIFIED = "32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    OTHER = "33 25 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"

    def find(self, *lines):
        return memory.memory_controller(cgroups.cgroup_mounts("".join(lines)))

    def test_v2_and_hybrid_and_v1(self):
        self.assertEqual(self.find(self.V2), (2, "/sys/fs/cgroup"))
        self.assertEqual(self.find(self.UNIFIED, self.OTHER, self.V1), (1, "/sys/fs/cgroup/memory"))

    def test_none(self):
        with self.assertRaises(memory.NoMemoryController):
            self.find(self.OTHER)


class Sampling(unittest.TestCase):
    STAT = {
        1: "cache 4096\nrss 8192\nrss_huge 1\ntotal_rss 99999\n",
        2: "anon 8192\nanon_thp 1\nfile 4096\ninactive_anon 5\n",
    }

    def sample(self, version, limit):
        """What the sampler says about a folder that looks like a cgroup."""
        with tempfile.TemporaryDirectory() as mount_point:
            sampler = memory.Sampler("/box", controller=(version, mount_point))
            self.assertFalse(sampler.sample())  # it does not exist yet
            os.mkdir(os.path.join(mount_point, "box"))
            texts = ("20480\n", self.STAT[version], limit)
            for name, text in zip(memory.Sampler.FILES[version], texts):
                with open(os.path.join(mount_point, "box", name), "w", encoding="ascii") as file:
                    file.write(text)
            self.assertTrue(sampler.sample())
            sampler.close()
            (sample,) = sampler.samples
            return sample

    def test_v1(self):
        self.assertEqual(self.sample(1, "536870912\n"), memory.Sample(0, 20480, 8192, 536870912))
        self.assertIsNone(self.sample(1, "9223372036854771712\n").limit)

    def test_v2(self):
        self.assertEqual(self.sample(2, "536870912\n"), memory.Sample(0, 20480, 8192, 536870912))
        self.assertIsNone(self.sample(2, "max\n").limit)

    def test_v1_with_rss_in_the_first_line(self):
        self.assertEqual(memory.Sampler("/x", (1, "/x"))._anon(b"rss 7\nrss_huge 8\n"), 7)


class Plots(unittest.TestCase):
    def test_terminal_plot_keeps_its_width_and_shows_the_limit(self):
        for unicode in (True, False):
            lines = memory.terminal_plot(ramp(), 512 * MIB, 80, unicode=unicode)
            self.assertTrue(all(len(line) <= 80 for line in lines), lines)
            self.assertIn("512 MiB", lines[0])
            self.assertEqual(all(line.isascii() for line in lines), not unicode)
            self.assertNotIn("\x1b", "".join(lines))

    def test_terminal_plot_is_as_high_as_the_memory(self):
        lines = memory.terminal_plot(ramp(), 400 * MIB, 60, height=4, unicode=False)
        body = [line.split("|")[1] for line in lines[:4]]
        self.assertEqual([row[0] for row in body], ["-", " ", " ", ":"])
        self.assertEqual([row[-1] for row in body], ["-", ":", ":", "#"])

    def test_picture_is_xml_and_names_what_it_shows(self):
        text = memory.svg_plot(ramp(), 512 * MIB, "a & b")
        xml.dom.minidom.parseString(text)
        self.assertIn("a &amp; b", text)
        self.assertIn("peak 300 MiB", text)
        self.assertNotIn('class="grant"', text)

    def test_a_lowered_limit_is_drawn(self):
        samples = [memory.Sample(s.t_us, s.usage, s.anon, 350 * MIB) for s in ramp()]
        self.assertIn('class="grant"', memory.svg_plot(samples, 512 * MIB, "lowered"))

    def test_csv(self):
        file = io.StringIO()
        memory.write_csv(file, [memory.Sample(0, 5, 3, None), memory.Sample(2000, 6, 3, 9)])
        self.assertEqual(file.getvalue(), "t_us,usage,anon,limit\n0,5,3,\n2000,6,3,9\n")


class NiceStep(unittest.TestCase):
    def test_steps_are_round_and_few(self):
        for span in (0.013, 0.2, 1, 2.3, 60, 3600):
            step = memory.nice_step(span, 6)
            self.assertLessEqual(span / step, 6)
            self.assertGreater(span / step, 2)


if __name__ == "__main__":
    unittest.main()
