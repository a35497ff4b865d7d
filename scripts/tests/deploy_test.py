"""deploy/: the chart gives the plain manifest, and both name the handler that containerd is told of.

Rendered by Helm if it is in PATH, and always by the few lines below: the templates use nothing else.
"""

import json
import os
import re
import shutil
import subprocess
import tomllib
import unittest

try:
    import yaml
except ImportError:
    yaml = None

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CHART = os.path.join(ROOT, "deploy/helm/elastic-mem")
PLAIN = os.path.join(ROOT, "deploy/kubernetes/elastic-mem.yaml")
NAMESPACE = "kube-system"


def read(*parts):
    with open(os.path.join(*parts), encoding="utf-8") as file:
        return file.read()


def values(**changed):
    return {**yaml.safe_load(read(CHART, "values.yaml")), **changed}


def render(name, given):
    """A template with its values; an action that is none of `.Values.X`, `.Release.Namespace`, `toJson` is an error."""

    def action(match):
        text = match[1].strip()
        as_json = text.startswith("toJson ")
        path = text.removeprefix("toJson ").split(".")
        if path[:2] == ["", "Values"]:
            value = given
            for key in path[2:]:
                value = value[key]
        elif path == ["", "Release", "Namespace"]:
            value = NAMESPACE
        else:
            raise ValueError(f"{name}: {text}")
        return json.dumps(value) if as_json else str(value)

    return re.sub(r"\{\{(.*?)\}\}", action, read(CHART, "templates", name))


def documents(given):
    names = sorted(os.listdir(os.path.join(CHART, "templates")))
    return [document for name in names for document in yaml.safe_load_all(render(name, given))]


@unittest.skipUnless(yaml, "no PyYAML")
class Chart(unittest.TestCase):
    def kinds(self, given=None):
        return {document["kind"]: document for document in documents(given or values())}

    def test_gives_the_plain_manifest(self):
        plain = list(yaml.safe_load_all(read(PLAIN)))
        self.assertEqual(documents(values()), plain, "scripts/tests/deploy_test.py writes it: see its end")

    def test_names_the_handler_of_containerd(self):
        runtimes = tomllib.loads(read(ROOT, "config/containerd.toml"))["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]
        ours = [name for name, runtime in runtimes.items() if runtime["runtime_type"] == "io.containerd.elastic-mem.v1"]
        self.assertEqual([self.kinds()["RuntimeClass"]["handler"]], ours)
        # Another name of the class is still this handler.
        other = self.kinds(values(runtimeClass="functions"))["RuntimeClass"]
        self.assertEqual((other["metadata"]["name"], other["handler"]), ("functions", ours[0]))

    def test_versions_are_those_of_the_program(self):
        version = tomllib.loads(read(ROOT, "Cargo.toml"))["package"]["version"]
        chart = yaml.safe_load(read(CHART, "Chart.yaml"))
        self.assertEqual((chart["version"], chart["appVersion"]), (version, version))
        self.assertTrue(values()["image"].endswith(f":{version}"))

    def test_the_installer_does_on_the_node_what_it_is_told(self):
        for action, engine in [("install", "containerd"), ("uninstall", "k3s")]:
            pod = self.kinds(values(action=action, engine=engine))["DaemonSet"]["spec"]["template"]["spec"]
            script = pod["initContainers"][0]["command"][-1]
            self.assertIn(f"/opt/elastic-mem/elastic-mem {action} {engine} --restart", script)
            subprocess.run(["sh", "-n"], input=script, text=True, check=True)
            self.assertTrue(pod["hostPID"])
            # It is the one privileged container, and ends.
            self.assertNotIn("privileged", pod["containers"][0]["securityContext"])

    def test_pods_run_where_it_is_installed(self):
        kinds = self.kinds(values(nodeSelector={"pool": "functions"}))
        installer = kinds["DaemonSet"]["spec"]["template"]["spec"]["nodeSelector"]
        self.assertEqual(kinds["RuntimeClass"]["scheduling"]["nodeSelector"], installer)
        self.assertEqual(installer, {"pool": "functions"})

    @unittest.skipUnless(shutil.which("helm"), "no helm")
    def test_helm_says_the_same(self):
        text = subprocess.run(
            ["helm", "template", "elastic-mem", CHART, "--namespace", NAMESPACE], capture_output=True, text=True, check=True
        ).stdout
        rendered = {document["kind"]: document for document in yaml.safe_load_all(text) if document}
        self.assertEqual(rendered, self.kinds())


if __name__ == "__main__":
    # `python3 scripts/tests/deploy_test.py write`: the plain manifest, from the chart.
    import sys

    if sys.argv[1:] == ["write"]:
        parts = [render(name, values()) for name in sorted(os.listdir(os.path.join(CHART, "templates")))]
        with open(PLAIN, "w", encoding="utf-8") as file:
            file.write("# The chart with its defaults, in namespace kube-system: deploy/helm/elastic-mem. kubectl apply -f\n")
            file.write("# this, with the image of your registry.\n" + "---\n".join(parts))
    else:
        unittest.main()
