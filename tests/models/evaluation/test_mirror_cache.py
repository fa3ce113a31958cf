"""Two mirrors in folders of the same name are two data sets."""

from models.evaluation.mirror import load_task
from models.proxy.mirrors import write_mirror


def test_a_second_mirror_in_a_folder_of_the_same_name_is_not_answered_from_the_firsts_cache(tmp_path):
    sizes = []
    for number, rows in enumerate((8, 12)):
        out = tmp_path / str(number) / "out"
        out.mkdir(parents=True)
        write_mirror(out, "mmvp", n=rows, seed=number, split="dev")
        sizes.append(len(load_task("vr_mmvp", out).eval_docs))
    assert sizes == [8, 12]
