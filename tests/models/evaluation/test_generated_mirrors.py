"""What the proxy writes is what evaluation reads: schema, prompts, targets and boxes of every benchmark."""

import pytest

from models.evaluation.boxes import read_boxes
from models.evaluation.rows import reading_of
from models.evaluation.tasks import TASKS, tasks_for


@pytest.mark.parametrize("benchmark", TASKS)
def test_a_generated_mirror_is_read_by_both_protocols(benchmark, mirrors, tmp_path):
    from models.evaluation.mirror import load_task
    from models.proxy.mirrors import write_mirror

    rows = 12 if benchmark == "blink" else 4
    write_mirror(tmp_path, benchmark, n=rows, seed=0, split="dev")
    reading = reading_of(benchmark)
    for protocol in TASKS[benchmark]:
        total = 0
        for name in tasks_for(benchmark, protocol):
            task = load_task(name, tmp_path)
            boxes = read_boxes(tmp_path, name, task.DATASET_NAME)
            total += len(task.eval_docs)
            assert sorted(doc_id for _, doc_id in boxes) == list(range(len(task.eval_docs)))
            for doc_id, doc in enumerate(task.eval_docs):
                own, image = boxes[name, doc_id]
                pictures = reading.images(doc)
                assert own.shape == (len(image), 4) and bool((own[:, 2:] > own[:, :2]).all())
                assert int(image.max()) < len(pictures)
                assert reading.target(doc) in "ABCDE"[: len(reading.options(doc))]
                (message,) = task.doc_to_messages(doc)
                assert [part["type"] for part in message["content"]] == ["image"] * len(pictures) + ["text"]
        assert total == rows
