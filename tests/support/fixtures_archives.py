"""Small archives in the original format of each dataset, a table that registers them, and a server to hand them out.

`paper_datasets(folder)` builds everything; its result goes into the environment variable VIT_PLASTICITY_DATASETS, and
the fetch stage, called bare or by Snakemake, then reads these instead of the published ones:

    with FileServer(folder) as server:
        os.environ["VIT_PLASTICITY_DATASETS"] = str(paper_datasets(folder, server.url))

Images are noise around a colour per class, so that something can be learnt from them.
"""

import csv
import hashlib
import io
import pickle
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from vit_plasticity.data.formats.cifar10_c import CIFAR10_CLASSES
from vit_plasticity.data.registry import TABLE

CORRUPTIONS = ("contrast", "gaussian_noise", "motion_blur", "snow", "speckle_noise")


def paper_datasets(folder, url=""):
    """Build all archives in `folder` and a table of them, whose path is returned; `url` is where `folder` is served."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, build in BUILDERS.items():
        files = build(folder)
        rows += table_rows(name, files, url="" if name == "imagenet" else url)
    return write_table(folder / "datasets.csv", rows)


def table_rows(name, files, url):
    """The rows of one dataset in the table: as shipped, but with these files, their URL and checksum, and no sizes."""
    with TABLE.open(newline="") as file:
        shipped = list(csv.DictReader(file))
    first = next(row for row in shipped if row["name"].split("{")[0] == name.split("{")[0])
    rows = []
    for number, path in enumerate(files):
        row = dict.fromkeys(first, "") if number else first | {"classes": "", "train": "", "val": "", "test": ""}
        row["file"], row["bytes"] = path.name, str(path.stat().st_size)
        row["url"] = f"{url.rstrip('/')}/{path.name}" if url else ""
        row["checksum"] = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append(row)
    return rows


def write_table(path, rows):
    """Write rows as a table of datasets, and return its path."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def pictures(labels, size=32, seed=0):
    """Noise around a colour per class: uint8 (n, size, size, 3)."""
    labels = np.asarray(labels)
    rng = np.random.default_rng(seed)
    colours = np.random.default_rng(1).uniform(40, 215, (max(labels.max() + 1, 1), 3))
    noise = rng.normal(0, 20, (len(labels), size, size, 3))
    return np.clip(colours[labels][:, None, None] + noise, 0, 255).astype(np.uint8)


def sizes(dataset):
    """Images per split of an opened dataset."""
    return {name: len(split) for name, split in dataset.splits.items()}


def recognisable(dataset, split="train"):
    """Whether every image of an opened dataset has the colour that `pictures` gives its class."""
    part = dataset.split(split)
    means = np.array([part.images[n].mean(axis=(0, 1)) for n in range(len(part))])
    colours = np.random.default_rng(1).uniform(40, 215, (len(dataset.classes), 3))
    return np.abs(means - colours[part.labels]).max() < 12


def image_bytes(pixels, kind="JPEG", **options):
    """An image file of the given pixels."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind, **options)
    return data.getvalue()


def tar(path, members, mode="w:gz"):
    """Write a tar file from {name: bytes}, always with the same bytes."""
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def cifar10(folder, per_batch=3, per_test=2):
    """cifar-10-python.tar.gz: five pickled batches, a test batch, the class names."""
    members = {"batches.meta": {"label_names": CIFAR10_CLASSES, "num_cases_per_batch": per_batch * 10, "num_vis": 3072}}
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        labels = np.tile(np.arange(10), per_test if name == "test_batch" else per_batch).tolist()
        members[name] = _batch(labels, number) | {"labels": labels}
    return [tar(folder / "cifar-10-python.tar.gz", _pickled("cifar-10-batches-py", members))]


def cifar100(folder, per_train=4, per_test=1):
    """cifar-100-python.tar.gz: a pickled train and test batch with fine and coarse labels."""
    members = {"meta": {"fine_label_names": [f"thing{n:02}" for n in range(100)], "coarse_label_names": ["all"]}}
    for number, (name, count) in enumerate({"train": per_train, "test": per_test}.items()):
        labels = np.tile(np.arange(100), count).tolist()
        members[name] = _batch(labels, number) | {"fine_labels": labels, "coarse_labels": [0] * len(labels)}
    return [tar(folder / "cifar-100-python.tar.gz", _pickled("cifar-100-python", members))]


def _batch(labels, seed):
    data = pictures(labels, seed=seed).transpose(0, 3, 1, 2).reshape(len(labels), -1)
    return {"batch_label": "a batch", "data": data, "filenames": [f"{n}.png" for n in range(len(labels))]}


def _pickled(folder, members):
    return {f"{folder}/{name}": pickle.dumps(value, protocol=2) for name, value in members.items()}


def cifar10_c(folder, per_class=10):
    """CIFAR-10-C.tar: labels and an array per corruption, of five severities one after the other."""
    labels = np.tile(np.arange(10), per_class)
    arrays = {"labels": np.tile(labels, 5).astype(np.uint8)}
    for number, name in enumerate(CORRUPTIONS):
        arrays[name] = np.concatenate([pictures(labels, seed=10 * number + severity) for severity in range(5)])
    members = {}
    for name, array in arrays.items():
        data = io.BytesIO()
        np.save(data, array)
        members[f"CIFAR-10-C/{name}.npy"] = data.getvalue()
    return [tar(folder / "CIFAR-10-C.tar", members, "w:")]


def flowers102(folder):
    """102flowers.tgz with a photograph per class and split, imagelabels.mat and setid.mat."""
    labels = np.tile(np.arange(102), 3)
    images = pictures(labels, size=40)[:, :30]
    members = {f"jpg/image_{n:05d}.jpg": image_bytes(image) for n, image in enumerate(images, 1)}
    files = [tar(folder / "102flowers.tgz", members), folder / "imagelabels.mat", folder / "setid.mat"]
    savemat(files[1], {"labels": labels[None].astype(np.uint8) + 1})
    ids = np.arange(1, 307, dtype=np.uint16)[None]
    savemat(files[2], {"trnid": ids[:, :102], "valid": ids[:, 102:204], "tstid": ids[:, 204:]})
    return files


def pet(folder, per_trainval=5, per_test=2):
    """images.tar.gz and annotations.tar.gz of three breeds; one picture is a palette GIF by content, as some are."""
    lists, images = {"trainval": [], "test": []}, {}
    for label, breed in enumerate(("Abyssinian", "american_bulldog", "Sphynx")):
        for number, picture in enumerate(pictures([label] * (per_trainval + per_test), 36, label), 1):
            images[f"images/{breed}_{number}.jpg"] = image_bytes(picture, "GIF" if number == 2 else "JPEG")
            split = "trainval" if number <= per_trainval else "test"
            lists[split].append(f"{breed}_{number} {label + 1} {1 + (breed[0].islower())} 1\n")
    annotations = {f"annotations/{split}.txt": "".join(lines).encode() for split, lines in lists.items()}
    return [tar(folder / "images.tar.gz", images), tar(folder / "annotations.tar.gz", annotations)]


def domainnet(domain, classes=("The_Eiffel_Tower", "t-shirt", "train"), per_class=8, size=48):
    """A builder of <domain>.zip: <domain>/<class>/<file>.jpg, `size` pixels wide and of different heights."""

    def build(folder):
        with zipfile.ZipFile(folder / f"{domain}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for label, name in enumerate(classes):
                for number, picture in enumerate(pictures([label] * per_class, size, label)):
                    member = zipfile.ZipInfo(f"{domain}/{name}/{domain}_{label:03}_{number:06}.jpg")
                    archive.writestr(member, image_bytes(picture[: size - 8 + number]))
        return [folder / f"{domain}.zip"]

    return build


def imagenet(folder, n_images=12):
    """ILSVRC2012_img_val.tar and the devkit, of three classes and one inner node of the hierarchy."""
    labels = np.arange(n_images) % 3
    names = [f"ILSVRC2012_val_{n:08d}.JPEG" for n in range(1, n_images + 1)]
    images = {name: image_bytes(picture) for name, picture in zip(names, pictures(labels, 40), strict=True)}
    columns = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")
    synsets = np.zeros(4, dtype=[(column, "O") for column in columns])
    for number, (wnid, children) in enumerate([("n03", 0), ("n01", 0), ("n02", 0), ("n00", 3)]):
        synsets[number] = (np.uint16(number + 1), wnid, f"words, of {wnid}", "gloss", np.uint8(children))
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    truth = "".join(f"{(2, 3, 1)[label]}\n" for label in labels)  # the ids of n01, n02, n03
    data = "ILSVRC2012_devkit_t12/data"
    devkit = {f"{data}/meta.mat": meta.getvalue(), f"{data}/ILSVRC2012_validation_ground_truth.txt": truth.encode()}
    return [
        tar(folder / "ILSVRC2012_img_val.tar", images, "w:"),
        tar(folder / "ILSVRC2012_devkit_t12.tar.gz", devkit),
    ]


BUILDERS = {
    "cifar10": cifar10,
    "cifar100": cifar100,
    "cifar10_c_{" + "|".join(CORRUPTIONS) + "}_{1|2|3|4|5}": cifar10_c,
    "flowers102": flowers102,
    "pet": pet,
    **{f"domainnet_{d}": domainnet(d) for d in ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")},
    "imagenet": imagenet,
}
"""Dataset (its name in the table) → the function that builds its files in a folder and returns their paths."""


class FileServer:
    """An HTTP server on this machine that hands out a folder's files, with byte ranges, and misbehaves on demand.

    A path such as /timm/NAME/resolve/main/FILE, as on the Hugging Face hub, stands for the file timm/NAME/FILE.
    faults: a list that GET requests consume from its front: ("cut", bytes) closes the connection after so many bytes of
    the body; ("status", code, headers) answers with an error; ("html",) with a web page; ("no range",) ignores the
    range; ("slow", seconds) waits before the body; ("drop",) closes the connection without an answer; ("untold", bytes)
    is a cut of an answer that gives no length. requests: (path, range) of each GET request so far.
    """

    def __init__(self, folder):
        self.folder, self.faults, self.requests = Path(folder), [], []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()


def _handler(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self._answer(body=True)

        def do_HEAD(self):
            self._answer(body=False)

        def _answer(self, body):
            asked = self.headers.get("Range")
            if body:
                server.requests.append((self.path, asked))
            kind, *values = (server.faults and body and server.faults.pop(0)) or ("none",)
            path = server.folder / self.path.split("?")[0].lstrip("/").replace("/resolve/main/", "/")
            if kind == "drop":
                self.close_connection = True
                return None
            if kind == "html":
                return self._send(200, b"<html>Please log in</html>", {"Content-Type": "text/html"}, body)
            if kind == "status" or not path.is_file():
                code = values[0] if kind == "status" else 404
                more = values[1] if len(values) > 1 else {}
                return self._send(code, b"<html>no</html>", {"Content-Type": "text/html"} | more, body)
            data = path.read_bytes()
            headers = {"Content-Type": "application/octet-stream", "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
            headers["X-Repo-Commit"] = "0" * 40
            # As the hub does for large files, which it also offers in pieces, from a place that is not served here.
            headers |= {"X-Xet-Hash": "f" * 64, "X-Xet-Refresh-Route": f"{server.url}/none"}
            status = 200
            if asked and kind != "no range":
                start = int(asked.removeprefix("bytes=").split("-")[0])
                if start >= len(data):
                    return self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"}, body)
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                data, status = data[start:], 206
            if kind == "slow":
                threading.Event().wait(values[0])
            cut = values[0] if kind in ("cut", "untold") else None
            self._send(status, data, headers, body, cut, told=kind != "untold")

        def _send(self, status, data, headers, body, cut=None, told=True):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if told:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data[:cut])
            if cut is not None:
                self.wfile.flush()
                self.close_connection = True

        def log_message(self, *arguments):
            pass

    return Handler
