"""`python -m tests.mutations`: break each promise on purpose, in a copy, and see a test of it fail.

A mutation replaces one piece of text in one file by another. It is caught if the named test, which passes without it,
fails with it; one that is not caught is printed as SURVIVED, and the exit status is 1.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Mutation:
    """breaks: the promise, as the README and the docstrings give it; file: below src/vit_plasticity."""

    breaks: str
    file: str
    old: str
    new: str
    test: str


MUTATIONS = [
    Mutation(
        "a write that fails leaves nothing behind",
        *("runtime/files.py", "        temporary.unlink(missing_ok=True)", "        pass"),
        "tests/unit/analysis/test_tables.py::test_a_write_that_fails_leaves_the_old_file_and_nothing_else",
    ),
    Mutation(
        "a write that fails leaves the old file alone",
        *("runtime/files.py", "        yield temporary\n", "        yield (temporary := path)\n"),
        "tests/unit/analysis/test_tables.py::test_a_write_that_fails_leaves_the_old_file_and_nothing_else",
    ),
    Mutation(
        "a failed stage exits non-zero",
        *("runtime/cli.py", "        return 2\n", "        return 0\n"),
        "tests/unit/data/test_fetch.py::test_the_command_line_refuses",
    ),
    Mutation(
        "an unknown key stops the study before any job",
        *("study/schema.py", "for key in [k for k in error.instance if k not in allowed]:", "for key in []:"),
        "tests/workflow/test_malformed.py::test_overlay_is_refused",
    ),
    Mutation(
        "missing weights never become random ones",
        *("vit/folder.py", '(f"local-dir:{folder}", pretrained=True)', '(f"local-dir:{folder}")'),
        "tests/unit/vit/test_models.py::test_weights_of_another_architecture_are_refused",
    ),
    Mutation(
        "a wrong checksum is refused",
        *("data/downloads.py", '    elif f"{algorithm}:{found}" != expected:', "    elif False:"),
        "tests/unit/data/test_downloads.py::test_wrong_bytes_are_refused_and_removed",
    ),
    Mutation(
        "an empty class folder is refused",
        "data/folders.py",
        "if empty := [name for name in classes if not folder.get(name)]:",
        "if empty := []:",
        "tests/unit/data/test_folders.py::test_a_folder_that_cannot_serve_is_refused",
    ),
    Mutation(
        "nothing untrusted is unpickled",
        *("data/registry.py", 'mmap_mode="r", allow_pickle=False) for kind', "allow_pickle=True) for kind"),
        "tests/unit/data/test_datasets.py::test_a_damaged_dataset_is_refused",
    ),
    Mutation(
        "an archive writes nowhere but into its folder",
        *("data/extraction.py", ' or ".." in path.parts', ""),
        "tests/unit/data/test_archives.py::test_names_that_leave_the_folder_are_refused",
    ),
    Mutation(
        "parsing the workflow imports no torch",
        *("study/config.py", "import itertools\n", "import itertools\nimport torch\n"),
        "tests/workflow/test_dry_run.py::test_parsing_imports_nothing_heavy",
    ),
    Mutation(
        "the same seed gives the same batches",
        *("data/batches.py", "hashlib.sha256(key)", 'hashlib.sha256(key + __import__("os").urandom(1))'),
        "tests/unit/data/test_batches.py::test_a_batch_depends_on_the_step_alone",
    ),
    Mutation(
        "a damaged checkpoint is never used",
        *("training/checkpoints.py", "if digest.hexdigest().encode() != found:", "if False:"),
        "tests/unit/training/test_checkpoints.py::test_a_damaged_checkpoint_gives_way_to_the_one_before",
    ),
    Mutation(
        "a checkpoint of another cell is never used",
        *("training/checkpoints.py", 'if key not in (None, metadata["key"]):', "if False:"),
        "tests/unit/training/test_checkpoints.py::test_a_checkpoint_of_another_key_is_refused_and_removed",
    ),
    Mutation(
        "test labels choose nothing",
        *("training/cell.py", 'lambda: self.evaluate("val")', 'lambda: self.evaluate("test")'),
        "tests/unit/training/test_cell.py::test_the_test_split_is_read_once_a_run_and_chooses_nothing",
    ),
    Mutation(
        "the learning rate is not chosen on test",
        *("training/cell.py", '{lr: finished[lr][0]["val_accuracy"]', '{lr: finished[lr][0]["test_accuracy"]'),
        "tests/unit/training/test_cell.py::test_the_learning_rate_is_chosen_on_validation_the_first_of_equals",
    ),
    Mutation(
        "test is read once a run",
        "training/cell.py",
        'tested = self.evaluate("test")',
        'self.evaluate("test"); tested = self.evaluate("test")',
        "tests/unit/training/test_cell.py::test_the_test_split_is_read_once_a_run_and_chooses_nothing",
    ),
    Mutation(
        "resume is bit-identical",
        *("training/run.py", "self.optimizer.state[parameter][slot] = tensor.to(where)", "pass"),
        "tests/unit/training/test_cell.py::test_an_interrupted_cell_ends_like_an_undisturbed_one",
    ),
    Mutation(
        "what other code made is not brought back",
        *("training/cell.py", '"source": source.fingerprint(),', '"source": None,'),
        "tests/faults/test_owners.py::test_other_code_brings_nothing_back",
    ),
    Mutation(
        "rows made differently are not mixed",
        *("analysis/sources.py", 'for field in ("stage", "study", "rev"):', "for field in ():"),
        "tests/unit/analysis/test_sources.py::test_stage_study_and_revision_are_the_same",
    ),
    Mutation(
        "permutations stay inside blocks, each with its own",
        *("analysis/association.py", "itertools.product(*per_block)", "zip(*per_block)"),
        "tests/unit/analysis/test_association.py::test_permutations_stay_inside_blocks",
    ),
]  # fmt: skip


def copy_tree(folder):
    """The files that git knows, in their present state."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    subprocess.run(["cp", "--parents", "-P", *names.rstrip("\0").split("\0"), str(folder)], cwd=ROOT, check=True)


def passes(tree, test):
    """Whether a test of the tree passes, with the tree's own package."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", test],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{test} could not be run:\n{done.stdout}{done.stderr}")
    return done.returncode == 0


def caught(tree, mutation):
    """Whether the mutation makes its test fail; the tree is left as it was."""
    file = tree / "src" / "vit_plasticity" / mutation.file
    original = file.read_text()
    if original.count(mutation.old) != 1:
        raise RuntimeError(f"{mutation.file} does not hold this text once, mend the mutation: {mutation.old!r}")
    file.write_text(original.replace(mutation.old, mutation.new))
    try:
        return not passes(tree, mutation.test)
    finally:
        file.write_text(original)


def main():
    survived = 0
    with tempfile.TemporaryDirectory(prefix="mutations-") as name:
        tree = Path(name)
        copy_tree(tree)
        for test in dict.fromkeys(mutation.test for mutation in MUTATIONS):
            if not passes(tree, test):
                raise RuntimeError(f"{test} fails without a mutation")
        for mutation in MUTATIONS:
            ok = caught(tree, mutation)
            survived += not ok
            print(f"{'caught' if ok else 'SURVIVED'}: {mutation.breaks} ({mutation.test})", flush=True)
    print(f"{len(MUTATIONS)} mutations, {survived} survived")
    return bool(survived)


if __name__ == "__main__":
    sys.exit(main())
