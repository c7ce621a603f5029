"""The network whose features FVD compares: the toy world's own at tiny scale, I3D at the paper's.

Both have `.name` (says what it is, stands beside every FVD) and `.features(clips) -> [N, D]`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

from vans.errors import UserError
from vans.files import check_readable, usual_permissions
from vans.models.vdm import to_model
from vans.models.whole import BROKEN


class ToyDetector(nn.Module):
    """A small 3-D convolutional classifier of the toy world's clips; FVD takes its penultimate features."""

    def __init__(self, classes: int, width: int = 24, features: int = 64):
        super().__init__()
        self.settings = {"classes": classes, "width": width, "features": features}
        w = width
        self.body = nn.Sequential(
            nn.Conv3d(3, w, (3, 4, 4), (1, 4, 4), (1, 0, 0)),  # [N, w, T, H/4, W/4]
            nn.GELU(),
            nn.Conv3d(w, 2 * w, 3, (2, 1, 1), 1),
            nn.GroupNorm(4, 2 * w),
            nn.GELU(),
            nn.Conv3d(2 * w, 3 * w, 3, 2, 1),
            nn.GroupNorm(4, 3 * w),
            nn.GELU(),
            nn.AdaptiveAvgPool3d((2, 2, 2)),
            nn.Flatten(),
            nn.Linear(3 * w * 8, features),
        )
        self.head = nn.Linear(features, classes)

    @property
    def name(self) -> str:
        return f"toy-world 3-D CNN, {self.settings['features']} features (not I3D: comparable within this world only)"

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 [N, T, H, W, 3] -> class logits [N, classes]."""
        return self.head(nn.functional.gelu(self.body(to_model(clips.to(self.head.weight.device)))))

    @torch.no_grad()
    def features(self, clips: Tensor, batch: int = 64) -> Tensor:
        """uint8 [N, T, H, W, 3] -> [N, D] float32 on the CPU."""
        device = self.head.weight.device
        return torch.cat([self.body(to_model(part.to(device))).float().cpu() for part in clips.split(batch)])

    def save(self, folder: str | Path) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        save_file(state, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(self.settings) + "\n")
        usual_permissions(folder)

    @classmethod
    def load(cls, folder: str | Path) -> ToyDetector:
        weights = check_readable(Path(folder) / "model.safetensors")
        if not weights.exists():
            raise UserError(f"{weights}: missing; run `dvc repro base`")
        try:
            detector = cls(**json.loads((Path(folder) / "config.json").read_text()))
            detector.load_state_dict(load_file(weights))
        except BROKEN as error:
            raise UserError(f"{weights}: not a whole detector ({error}); run `dvc repro base`") from error
        return detector.eval().requires_grad_(False)


class I3D:
    """The I3D TorchScript that StyleGAN-V's FVD uses: 224 x 224 bilinear, videos in [0, 255], 400 features.

    Whole frames are squashed into the square, as in StyleGAN-V's code; a centre crop gives other numbers.
    """

    name = "I3D (Kinetics-400 TorchScript of StyleGAN-V), whole frames squashed to 224 x 224 (bilinear, no crop)"

    def __init__(self, path: str | Path, sha256: str, device: str | torch.device = "cpu"):
        path = Path(path)
        if not path.exists():
            raise UserError(
                f"{path}: the I3D TorchScript is missing; put it there (models.detector.path in params.yaml)"
            )
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != sha256:
            raise UserError(f"{path}: sha256 is {found}, models.detector.sha256 says {sha256}; not loaded")
        self.device = torch.device(device)
        self.model = torch.jit.load(str(path), map_location=self.device).eval()

    @torch.no_grad()
    def features(self, clips: Tensor, batch: int = 8) -> Tensor:
        """uint8 [N, T, H, W, 3], T >= 9 -> [N, 400]."""
        out = []
        for part in clips.split(batch):
            x = part.to(self.device).permute(0, 4, 1, 2, 3).float()
            n, t = x.shape[0], x.shape[2]
            x = interpolate(x.transpose(1, 2).flatten(0, 1), size=(224, 224), mode="bilinear", align_corners=False)
            x = x.unflatten(0, (n, t)).transpose(1, 2)
            out.append(self.model(x, rescale=True, resize=False, return_features=True).float().cpu())
        return torch.cat(out)


def load_detector(params: Any, base: Path, device: Any = "cpu") -> I3D | ToyDetector:
    """FVD's network: the toy world's, or I3D from a file whose hash params.yaml pins."""
    model = params.models.detector
    if model.path is not None:
        return I3D(model.path, model.sha256, device)
    return ToyDetector.load(Path(base) / "detector").to(device)
