"""What scripts/install puts where, with a made-up binary."""

import os
import subprocess
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SHIM = "usr/bin/containerd-shim-elastic-mem-v1"
CONFIG = "etc/elastic-mem/config.toml"

# Answers as the real one does where the script asks it, and with its own name.
BINARY = """#!/bin/sh
case $1 in
completions) echo "completions of $2" ;;
man) echo page >"$2/elastic-mem.1" ;;
*) basename "$0" ;;
esac
"""


class Install(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = os.path.join(folder.name, "top")
        self.binary = os.path.join(folder.name, "binary")
        with open(self.binary, "w", encoding="ascii") as file:
            file.write(BINARY)
        os.chmod(self.binary, 0o755)

    def install(self):
        argv = [os.path.join(ROOT, "scripts", "install"), self.binary, self.top, "/usr", "/etc"]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    def read(self, path):
        with open(os.path.join(self.top, path), encoding="utf-8") as file:
            return file.read()

    def test_the_shim_is_the_same_program_under_its_own_name(self):
        self.install()
        self.assertTrue(os.path.samefile(os.path.join(self.top, SHIM), os.path.join(self.top, "usr/bin/elastic-mem")))
        said = subprocess.run([os.path.join(self.top, SHIM)], capture_output=True, text=True, check=True).stdout
        self.assertEqual(said.strip(), os.path.basename(SHIM))
        # It also holds when the tree is moved to its place later.
        self.assertFalse(os.readlink(os.path.join(self.top, SHIM)).startswith("/"))

    def test_the_file_that_is_read_is_made_once_and_then_the_operators(self):
        self.install()
        with open(os.path.join(ROOT, "config", "elastic-mem.toml"), encoding="utf-8") as file:
            self.assertEqual(self.read(CONFIG), file.read())
        with open(os.path.join(self.top, CONFIG), "w", encoding="utf-8") as file:
            file.write("# mine\n")
        self.assertIn(f"kept {self.top}/{CONFIG}", self.install())
        self.assertEqual(self.read(CONFIG), "# mine\n")

    def test_nothing_else_is_where_programs_look_for_configuration(self):
        self.install()
        self.assertEqual(os.listdir(os.path.join(self.top, "etc")), ["elastic-mem"])
        self.assertEqual(os.listdir(os.path.join(self.top, "etc/elastic-mem")), ["config.toml"])
        examples = os.listdir(os.path.join(self.top, "usr/share/doc/elastic-mem"))
        self.assertEqual(sorted(examples), sorted(os.listdir(os.path.join(ROOT, "config"))))

    def test_a_second_run_changes_and_leaves_nothing(self):
        self.install()
        before = sorted(os.walk(self.top))
        self.install()
        self.assertEqual(sorted(os.walk(self.top)), before)
        self.assertEqual(
            sorted(os.listdir(os.path.join(self.top, "usr/bin"))), [os.path.basename(SHIM), "elastic-mem"]
        )


if __name__ == "__main__":
    unittest.main()
