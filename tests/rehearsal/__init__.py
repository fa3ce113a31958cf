"""Rehearsal of the real job: everything that `run.py … --profile a800` reads, in its true form and at a tiny size.

`world` writes the files; the tests run the whole product on them. The world knows the formats of others (the hub, the
release, lmms-eval) and nothing of this project but the profile it writes: it never imports `models` or `harness`.

    python -m tests.rehearsal OUT
    HF_HOME=OUT/hf HF_HUB_OFFLINE=1 python run.py experiments/table3c.yaml --profile OUT/profile.yaml
"""
