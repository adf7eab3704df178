"""The smoke study on SLURM from nothing, when nothing goes wrong."""

from study import SLURM, Study, assert_same_tables, cell_processes


def test_study_on_slurm_equals_that_of_a_local_run(slurm, reference, tmp_path):
    study = Study.checkout(tmp_path / "study", slurm)
    devices = {}  # job → what its cell saw as CUDA_VISIBLE_DEVICES

    def look():
        running = slurm.jobs("RUNNING", folder=study.folder, rule="finetune")
        seen = {job: e["CUDA_VISIBLE_DEVICES"] for job in running for e in cell_processes(slurm, job).values()}
        assert len(set(seen.values())) == len(seen), f"two cells on one GPU: {seen}"
        devices.update(seen)

    with study.start(*SLURM) as snakemake:
        slurm.wait_for(lambda: look() or snakemake.poll() is not None, "the study to end", 900, 0.5)
    assert snakemake.returncode == 0, study.said()

    assert_same_tables(study, reference)
    assert devices.keys() == slurm.jobs("COMPLETED", folder=study.folder, rule="finetune").keys()
    assert len(devices) == 8, "a cell ran twice, or not at all"
    assert set(devices.values()) == {"0", "1"}
