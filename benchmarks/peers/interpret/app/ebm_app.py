"""Runs in the peer's environment: fits DP-EBM and writes decision values of the test rows."""

import json
import sys
from pathlib import Path

import numpy as np
from interpret.privacy import DPExplainableBoostingClassifier


def main(folder: Path) -> None:
    """Reads the task in ``folder`` and writes ``rankings`` there."""
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    rows, test = (
        np.frombuffer((folder / name).read_bytes(), dtype="<f8").reshape(-1, task["columns"])
        for name in ("rows", "test")
    )
    labels = np.frombuffer((folder / "labels").read_bytes(), dtype="<f8").astype(int)
    kinds = ["nominal" if flag else "continuous" for flag in task["categorical"]]
    bounds = {at: (0.0, 1.0) for at, flag in enumerate(task["categorical"]) if not flag}
    found = []
    for epsilon, seed in task["fits"]:
        model = DPExplainableBoostingClassifier(
            feature_types=kinds,
            privacy_bounds=bounds,
            epsilon=epsilon,
            delta=task["delta"],
            random_state=seed,
            n_jobs=1,
        )
        model.fit(rows, labels)
        found.append(np.asarray(model.decision_function(test), dtype="<f8"))
    (folder / "rankings").write_bytes(np.stack(found).tobytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
