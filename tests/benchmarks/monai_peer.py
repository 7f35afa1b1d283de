"""MONAI's U-Net beside the strong recipe: same patients, same minutes, same scorer.

    python tests/benchmarks/monai_peer.py --data TRAIN_ROOT --test TEST_ROOT --minutes 10

wants ``pip install -e '.[peer]'``, which brings PyTorch. The network has the number of parameters of the
strong recipe's second one; transforms and loss are those of MONAI's tutorial of CT segmentation
(spleen_segmentation_3d), in 2D, as slices are all there is: random crops that are centred on liver or
tumour as often as not, mirrored, turned by right angles, shifted in brightness. Where the tutorial's
choice would be unfair in minutes, the better is taken: Adam at 1e-3 down a cosine instead of 1e-4, and
cross-entropy beside the Dice. All volumes of --data train; nothing is chosen on those of --test.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import monai
import numpy as np
import torch
from monai import transforms
from monai.inferers import sliding_window_inference

from lits_helpers.index import build_index
from lits_helpers.masks import TUMOUR, read_labels
from lits_helpers.pictures import read_image
from lits_helpers.scoring import patient_scores, slice_scores, summary

CHANNELS = (16, 32, 64, 128, 256)
CROP = (192, 192)
BATCH = 8
RATE = 1e-3
GREEN = 1  # the channel of -40 to 160 HU; the tutorial's window is -57 to 164


def loaded(row):
    """A slice as the transforms want it: image (1, rows, columns) in 0..1, labels likewise."""
    image = read_image(row.image_path)[None, ..., GREEN].astype(np.float32) / 255
    return {"image": image, "label": read_labels(row.mask_path)[None]}


def augmentation():
    both = dict(keys=["image", "label"])
    return transforms.Compose([
        transforms.RandCropByPosNegLabeld(**both, label_key="label", spatial_size=CROP, pos=1, neg=1, num_samples=1),
        transforms.RandFlipd(**both, prob=0.5, spatial_axis=0),
        transforms.RandFlipd(**both, prob=0.5, spatial_axis=1),
        transforms.RandRotate90d(**both, prob=0.1, max_k=3),
        transforms.RandShiftIntensityd(keys=["image"], offsets=0.10, prob=0.5),
    ])


def trained(table, seconds, started):
    """A network, and the number of crops that it saw before the time was over."""
    network = monai.networks.nets.UNet(
        2, 1, 3, CHANNELS, (2,) * (len(CHANNELS) - 1), num_res_units=2, norm="batch"
    )
    print(f"{sum(p.numel() for p in network.parameters()):,} parameters; decoding {len(table)} slices")
    slices = [loaded(row) for row in table.itertuples()]
    transform, random = augmentation(), np.random.default_rng(0)
    loss_function = monai.losses.DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    seen = 0
    while (done := (time.monotonic() - started) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 + np.cos(np.pi * done)) / 2
        batch = [transform(slices[place])[0] for place in random.integers(len(slices), size=BATCH)]
        images, labels = (torch.stack([torch.as_tensor(one[key]) for one in batch]) for key in ("image", "label"))
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            answers = network(images)
        loss = loss_function(answers.float(), labels)
        loss.backward()
        optimizer.step()
        seen += BATCH
    return network, seen


@torch.no_grad()
def masks(network, table):
    """Truth and prediction of each slice; the likeliest of three classes, averaged over windows."""
    network.eval()
    for row in table.itertuples():
        one = loaded(row)
        with torch.autocast("cpu", torch.bfloat16):
            answer = sliding_window_inference(torch.as_tensor(one["image"])[None], CROP, 4, network, overlap=0.25)
        yield one["label"][0] == TUMOUR, (answer.float().argmax(1)[0] == TUMOUR).numpy()


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--test", type=Path, required=True)
    options.add_argument("--minutes", type=float, default=10)
    chosen = options.parse_args()
    started = time.monotonic()
    monai.utils.set_determinism(0)
    with TemporaryDirectory() as folder:
        training, test = (build_index(root, Path(folder)) for root in (chosen.data, chosen.test))
        network, seen = trained(training, 60 * chosen.minutes, started)
        minutes = (time.monotonic() - started) / 60
        print(f"MONAI {monai.__version__}, PyTorch {torch.__version__}: {seen:,} crops in {minutes:.1f} minutes")
        scores = slice_scores(test, masks(network, test))
    print(summary(scores).round(3).to_string(index=False, na_rep="-"))
    print(patient_scores(scores).round(3).to_string(index=False, na_rep="-"))


if __name__ == "__main__":
    main()
