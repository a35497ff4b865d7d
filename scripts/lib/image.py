"""Builds an OCI image of one layer as a file for `ctr image import`. Same contents, same bytes."""

import hashlib
import io
import json
import os
import platform
import tarfile

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64", "ppc64le": "ppc64le", "s390x": "s390x"}


class Layer:
    """The root file system of an image, put together from files of the host."""

    def __init__(self):
        self._file = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)
        self._folders = set()

    def _add(self, info, file=None):
        info.uid = info.gid = info.mtime = 0
        self._tar.addfile(info, file)

    def _entry(self, path, kind, mode):
        """An entry whose folders are in the layer before it."""
        path = path.strip("/")
        if os.path.dirname(path):
            self.folder(os.path.dirname(path))
        info = tarfile.TarInfo(path)
        info.type, info.mode = kind, mode
        return info

    def folder(self, path, mode=0o755):
        path = path.strip("/")
        if path and path not in self._folders:
            self._add(self._entry(path, tarfile.DIRTYPE, mode))
            self._folders.add(path)

    def link(self, path, target):
        info = self._entry(path, tarfile.SYMTYPE, 0o777)
        info.linkname = target
        self._add(info)

    def text(self, path, text, mode=0o644):
        data = text.encode()
        info = self._entry(path, tarfile.REGTYPE, mode)
        info.size = len(data)
        self._add(info, io.BytesIO(data))

    def file(self, path, source):
        """A copy of a file; whether it can be executed stays."""
        with open(source, "rb") as file:
            status = os.fstat(file.fileno())
            info = self._entry(path, tarfile.REGTYPE, 0o755 if status.st_mode & 0o100 else 0o644)
            info.size = status.st_size
            self._add(info, file)

    def tree(self, path, source):
        """Copies of all files below a folder."""
        self.folder(path)
        for base, folders, names in os.walk(source):
            folders.sort()
            inside = os.path.join(path, os.path.relpath(base, source))
            for name in sorted(names):
                self.file(os.path.normpath(os.path.join(inside, name)), os.path.join(base, name))

    def bytes(self):
        self._tar.close()
        return self._file.getvalue()


def write_image(path, name, layer, config):
    """Writes image `name` with one layer. `config` is what the image says about its process: Env, Cmd, ..."""
    layout = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}

    def blob(data, media_type):
        digest = hashlib.sha256(data).hexdigest()
        layout[f"blobs/sha256/{digest}"] = data
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}", "size": len(data)}

    def document(value, media_type):
        return blob(json.dumps(value, sort_keys=True).encode(), media_type)

    machine = platform.machine()
    layer_blob = blob(layer.bytes(), "layer.v1.tar")
    image = {
        "architecture": ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer_blob["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": document(image, "config.v1+json"),
        "layers": [layer_blob],
    }
    entry = document(manifest, "manifest.v1+json")
    entry["annotations"] = {"io.containerd.image.name": name}
    layout["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    with tarfile.open(path, "w") as archive:
        for inside in sorted(layout):
            info = tarfile.TarInfo(inside)
            info.size, info.mode = len(layout[inside]), 0o644
            archive.addfile(info, io.BytesIO(layout[inside]))
