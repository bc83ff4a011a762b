"""How the dataset beside this file was written, and read.

python make_rlds.py        # with tensorflow-cpu 2.21.0, tensorflow-datasets 4.9.10 and PyAV
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
SAMPLE = HERE.parents[1] / "sample_data" / "robot"


def arms(out: Path) -> Any:
    """What Open X-Embodiment has: pictures as JPEG and PNG, states, actions in a group, words in every step."""
    import tensorflow_datasets as tfds

    F = tfds.features

    class Arms(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = HERE

        def _info(self):
            observation = F.FeaturesDict(
                {
                    "image": F.Image(shape=(24, 32, 3), encoding_format="jpeg"),
                    "wrist_image": F.Image(shape=(None, None, 3), encoding_format="png"),
                    "depth": F.Image(shape=(24, 32, 1), dtype=np.float32),
                    "state": F.Tensor(shape=(7,), dtype=np.float32),
                    "map": F.Tensor(shape=(2, 3), dtype=np.int16, encoding="zlib"),
                    "touched": F.Sequence(F.Scalar(dtype=np.int32)),
                }
            )
            steps = F.FeaturesDict(
                {
                    "observation": observation,
                    "action": F.FeaturesDict(
                        {
                            "world_vector": F.Tensor(shape=(3,), dtype=np.float32),
                            "open_gripper": F.Scalar(dtype=np.bool_),
                        }
                    ),
                    "reward": F.Scalar(dtype=np.float64),
                    "is_first": F.Scalar(dtype=np.bool_),
                    "is_last": F.Scalar(dtype=np.bool_),
                    "ticks": F.Scalar(dtype=np.uint64),
                    "language_instruction": F.Text(),
                    "language_embedding": F.Tensor(shape=(16,), dtype=np.float32),
                }
            )
            return self.dataset_info_from_configs(
                features=F.FeaturesDict(
                    {
                        "steps": F.Dataset(steps),
                        "episode_metadata": F.FeaturesDict(
                            {"file_path": F.Text(), "success": F.Scalar(dtype=np.bool_)}
                        ),
                    }
                )
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples((0, 1, 2)), "val": self._generate_examples((3, 4))}

        def _generate_examples(self, which):
            for number in which:
                yield (
                    number,
                    {
                        "steps": list(steps(number)),
                        "episode_metadata": {"file_path": f"/raw/{number}.h5", "success": number != 1},
                    },
                )

    return Arms(data_dir=out)


def steps(number: int) -> Iterator[dict[str, Any]]:
    import av
    import pyarrow.parquet as pq

    table = pq.read_table(SAMPLE / "arm-01.parquet").to_pandas()
    joints = table.filter(like="q_").to_numpy(np.float32)[:, :7]
    with av.open(str(SAMPLE / "arm-01.mp4")) as film:
        frames = [f.to_ndarray(width=32, height=24, format="rgb24") for f in film.decode(video=0)]
    count, first = 5 + number, 20 * number
    for k in range(count):
        at = first + k
        yield {
            "observation": {
                "image": frames[at],
                "wrist_image": frames[at][:16, :16],
                "state": joints[4 * at],
                "depth": frames[at][..., :1].astype(np.float32) / 7,
                "map": np.full((2, 3), at - 20, np.int16),
                "touched": np.arange(k % 3, dtype=np.int32),
            },
            "action": {"world_vector": joints[4 * at + 4, :3] - joints[4 * at, :3], "open_gripper": k % 2 == 0},
            "reward": float(k == count - 1),
            "is_first": k == 0,
            "is_last": k == count - 1,
            "ticks": np.uint64(2**63 + at),
            "language_instruction": "pick up the puck" if number else "",
            "language_embedding": np.linspace(0, 1, 16, dtype=np.float32),
        }


def main(out: Path) -> None:
    """The dataset, and beside it what tfds itself reads of it."""
    import tensorflow_datasets as tfds

    builder = arms(out)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=2))
    read = {}
    for split in ("train", "val"):
        for number, episode in enumerate(tfds.as_numpy(builder.as_dataset(split=split))):
            rows = list(episode["steps"])
            for group, names in (
                ("observation", ("image", "state", "map")),
                ("action", ("world_vector", "open_gripper")),
            ):
                for name in names:
                    read[f"{split}_{number:06d}/{name}"] = np.stack([row[group][name] for row in rows])
            for name in ("reward", "is_first", "is_last", "ticks", "language_instruction"):
                read[f"{split}_{number:06d}/{name}"] = np.array([row[name] for row in rows])
    np.savez_compressed(out / "read_by_tfds.npz", **read)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
