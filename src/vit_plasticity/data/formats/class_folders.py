"""Archives of class folders."""

from vit_plasticity.data.extraction import extract
from vit_plasticity.data.formats import dataset_format
from vit_plasticity.data.formats.imagefolder import write_folder


@dataset_format
def class_folders(entry, writer, source):
    """Archives of class folders, below one common folder or not, such as the domains of DomainNet."""
    for file in entry.files:
        extract(source.get(file), writer.scratch)
    root = writer.scratch
    while len(inside := [path for path in root.iterdir() if not path.name.startswith((".", "__MACOSX"))]) == 1:
        (root,) = inside
    write_folder(root, writer, entry)
