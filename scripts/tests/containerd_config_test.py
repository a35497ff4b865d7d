"""config/containerd.toml, both of its forms, read by the containerd releases that are at hand.

Those are the one in PATH and those of target/engines. With ELASTIC_MEM_MAX_SKIPS=0 there must be one of each kind.
"""

import glob
import os
import re
import shutil
import subprocess
import tempfile
import tomllib
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FILE = os.path.join(ROOT, "config", "containerd.toml")
PLUGINS = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}


def forms():
    """{version: text}: the file as it is, and its second form as the file says to make it."""
    with open(FILE, encoding="utf-8") as file:
        lines = file.read().splitlines(keepends=True)
    second = [line[1:] for line in lines if re.match(r"#[^ \n]", line)]
    return {2: "".join(lines), 3: "".join(second)}


def runtime(document, name="elastic-mem"):
    version = document["version"]
    return document["plugins"][PLUGINS[min(version, 3)]]["containerd"]["runtimes"][name]


def releases():
    """{version as (major, minor): path} of the containerds that run here."""
    fetched = glob.glob(os.path.join(ROOT, "target/engines/containerd-*/usr/bin/containerd"))
    paths = [shutil.which("containerd"), *sorted(fetched)]
    result = {}
    for path in filter(None, paths):
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
        found = re.search(r" v?(\d+)\.(\d+)\.", answer)
        if found:
            result.setdefault((int(found[1]), int(found[2])), path)
    return result


class Forms(unittest.TestCase):
    def test_both_say_the_same(self):
        first, second = (tomllib.loads(text) for text in forms().values())
        self.assertEqual((first["version"], second["version"]), (2, 3))
        first, second = runtime(first), runtime(second)
        self.assertEqual(second.pop("sandboxer"), "podsandbox")
        self.assertEqual(first, second)

    def test_every_setting_is_explained(self):
        with open(FILE, encoding="utf-8") as file:
            text = file.read().split("# The second form")[0]
        for block in text.split("\n\n"):
            if any(line and not line.startswith("#") for line in block.splitlines()):
                self.assertTrue(block.lstrip("\n").startswith("# "), block)


class Releases(unittest.TestCase):
    def dumped(self, path, text):
        """What a containerd has understood."""
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(text)
            file.flush()
            argv = [path, "-c", file.name, "config", "dump"]
            result = subprocess.run(argv, capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        return tomllib.loads(result.stdout)

    def check(self, version, wanted):
        found = {release: path for release, path in releases().items() if wanted(release)}
        if not found and os.environ.get("ELASTIC_MEM_MAX_SKIPS") != "0":
            self.skipTest(f"there is no containerd that reads version {version}; scripts/engines fetches some")
        self.assertTrue(found, f"there is no containerd that reads version {version}")
        expected = runtime(tomllib.loads(forms()[version]))
        for release, path in found.items():
            with self.subTest(containerd=release):
                dump = self.dumped(path, forms()[version])
                understood = runtime(dump)
                self.assertEqual(expected | understood, understood)
                # Pods without a class run on it.
                self.assertIn("runc", dump["plugins"][PLUGINS[min(dump["version"], 3)]]["containerd"]["runtimes"])

    def test_version_2_is_read_by_all(self):
        self.check(2, lambda release: True)

    def test_version_2_is_read_by_containerd_1(self):
        self.check(2, lambda release: release < (2, 0))

    def test_version_3_is_read_by_containerd_2(self):
        self.check(3, lambda release: release >= (2, 0))


if __name__ == "__main__":
    unittest.main()
