"""The parts of scripts/lib that need no containerd: images, names, what is left."""

import hashlib
import io
import json
import os
import sys
import tarfile
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.append(os.path.join(ROOT, "scripts", "lib"))

import image  # noqa: E402
import private_containerd as pc  # noqa: E402


class Image(unittest.TestCase):
    def written(self, folder, name="a.tar"):
        layer = image.Layer()
        layer.link("bin", "usr/bin")
        layer.text("etc/passwd", "root:x:0:0::/:\n")
        layer.tree("scripts", os.path.join(ROOT, "scripts", "lib"))
        path = os.path.join(folder, name)
        image.write_image(path, "localhost/a:latest", layer, {"Cmd": ["/bin/true"]})
        with open(path, "rb") as file:
            return file.read()

    def test_its_parts_refer_to_each_other_by_digest(self):
        with tempfile.TemporaryDirectory() as folder:
            archive = tarfile.open(fileobj=io.BytesIO(self.written(folder)))
        files = {entry.name: archive.extractfile(entry).read() for entry in archive.getmembers()}

        def blob(entry):
            data = files["blobs/" + entry["digest"].replace(":", "/")]
            self.assertEqual(entry["digest"], "sha256:" + hashlib.sha256(data).hexdigest())
            self.assertEqual(entry["size"], len(data))
            return data

        (entry,) = json.loads(files["index.json"])["manifests"]
        self.assertEqual(entry["annotations"]["io.containerd.image.name"], "localhost/a:latest")
        manifest = json.loads(blob(entry))
        config = json.loads(blob(manifest["config"]))
        self.assertEqual(config["rootfs"]["diff_ids"], [manifest["layers"][0]["digest"]])
        self.assertEqual(config["config"], {"Cmd": ["/bin/true"]})
        layer = tarfile.open(fileobj=io.BytesIO(blob(manifest["layers"][0])))
        self.assertEqual(layer.getnames()[:3], ["bin", "etc", "etc/passwd"])
        self.assertIn("scripts/image.py", layer.getnames())

    def test_the_same_contents_give_the_same_bytes(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(self.written(folder), self.written(folder, "b.tar"))


class Names(unittest.TestCase):
    def test_a_runtime_names_its_shim(self):
        self.assertEqual(pc.shim_name("io.containerd.elastic-mem.v1"), "containerd-shim-elastic-mem-v1")
        self.assertEqual(pc.shim_name("io.containerd.runc.v2"), "containerd-shim-runc-v2")
        for wrong in ("", "runc", "io.containerd.", "/usr/bin/a.b"):
            with self.assertRaises(pc.ContainerdFailed):
                pc.shim_name(wrong)

    def test_the_socket_in_an_answer_of_a_shim(self):
        self.assertEqual(pc.shim_answer("unix:///run/s/1\n"), ("/run/s/1", 2))
        reply = '{"version": 3, "address": "unix:///run/s/2", "protocol": "ttrpc"}'
        self.assertEqual(pc.shim_answer(reply), ("/run/s/2", 3))
        self.assertEqual(pc.shim_answer("error: no"), (None, 2))
        with self.assertRaises(ValueError):
            pc.shim_answer("{")

    def test_names_of_mountinfo(self):
        self.assertEqual(pc.unescape(r"/a\040b\134c"), "/a b\\c")


class Sweep(unittest.TestCase):
    def test_only_folders_of_dead_programs_go(self):
        said = []
        with tempfile.TemporaryDirectory() as parent:
            alive = pc.PrivateContainerd(parent, "test-sweep", "/nowhere")
            dead = os.path.join(parent, "test-sweep-dead")
            other = os.path.join(parent, "other")
            for folder in (dead, other):
                os.mkdir(folder)
            pc.sweep(parent, "test-sweep", said.append)
            self.assertEqual(sorted(os.listdir(parent)), ["other", alive.label])
            self.assertEqual(len(said), 1)
            alive.remove()
            self.assertEqual(os.listdir(parent), ["other"])


if __name__ == "__main__":
    unittest.main()
