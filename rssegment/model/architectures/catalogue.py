"""Our own architectures by name: where each is, who described it, and how large the description says it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from torch import nn

__all__ = ["OWN", "SMP", "Entry"]

_ROOM = "rssegment.model.architectures"


@dataclass(frozen=True)
class Entry:
    """One architecture: class ``kind`` of the file ``module``, called with ``options`` unless told otherwise.

    ``published`` is the number of parameters in millions that ``paper`` (or its authors' code) gives for the network
    with ``published_classes`` outputs on 3 bands; None where none is known. ``remark`` explains a difference.
    """

    module: str
    kind: str
    paper: str
    options: dict[str, Any] = field(default_factory=dict)
    published: float | None = None
    published_classes: int = 19
    remark: str = ""

    def type(self) -> type[nn.Module]:
        """Its class."""
        found: type[nn.Module] = getattr(import_module(f"{_ROOM}.{self.module}"), self.kind)
        return found

    def build(self, bands: int, classes: int, **options: Any) -> nn.Module:
        """The network with random weights."""
        return self.type()(bands, classes, **(self.options | options))


OWN: dict[str, Entry] = {
    "patch": Entry("patch_classifier", "PatchClassifier", "Ciresan et al. 2012, NeurIPS"),
    "fcn32s": Entry(
        "fcn", "FCN", "Long, Shelhamer & Darrell 2015, arXiv 1411.4038", {"stride": 32}, 134.0, 21
    ),
    "fcn16s": Entry("fcn", "FCN", "Long, Shelhamer & Darrell 2015, arXiv 1411.4038", {"stride": 16}),
    "fcn8s": Entry("fcn", "FCN", "Long, Shelhamer & Darrell 2015, arXiv 1411.4038", {"stride": 8}),
    "unet": Entry("unet", "UNet", "Ronneberger, Fischer & Brox 2015, arXiv 1505.04597", {}, 31.0, 2),
    "segnet": Entry("segnet", "SegNet", "Badrinarayanan et al. 2017, arXiv 1511.00561", {}, 29.5, 12),
    "deconvnet": Entry("deconvnet", "DeconvNet", "Noh, Hong & Han 2015, arXiv 1505.04366", {}, 252.0, 21),
    "dilated": Entry("dilated", "Dilated", "Yu & Koltun 2016, arXiv 1511.07122"),
    "deeplabv1": Entry("deeplab", "DeepLab", "Chen et al. 2015, arXiv 1412.7062", {"aspp": False}, 20.5, 21),
    "deeplabv2": Entry(
        "deeplab", "DeepLab", "Chen et al. 2017, arXiv 1606.00915", {"aspp": True, "encoder": "resnet101"}
    ),
    "gcn": Entry("gcn", "GCN", "Peng et al. 2017, arXiv 1703.02719"),
    "refinenet": Entry("refinenet", "RefineNet", "Lin et al. 2017, arXiv 1611.06612"),
    "enet": Entry("enet", "ENet", "Paszke et al. 2016, arXiv 1606.02147", {}, 0.37),
    "erfnet": Entry("erfnet", "ERFNet", "Romera et al. 2018, IEEE T-ITS 19(1)", {}, 2.1),
    "fcdensenet56": Entry(
        "fcdensenet",
        "FCDenseNet",
        "Jégou et al. 2017, arXiv 1611.09326",
        {"layers": 56},
        1.5,
        12,
        remark="the description adds up to 1.38 M, while those of 67 and 103 layers give the paper's figures",
    ),
    "fcdensenet67": Entry(
        "fcdensenet", "FCDenseNet", "Jégou et al. 2017, arXiv 1611.09326", {"layers": 67}, 3.5, 12
    ),
    "fcdensenet103": Entry(
        "fcdensenet", "FCDenseNet", "Jégou et al. 2017, arXiv 1611.09326", {"layers": 103}, 9.4, 12
    ),
    "frrn_a": Entry("frrn", "FRRN", "Pohlen et al. 2017, arXiv 1611.08323", {"variant": "A"}, 17.7),
    "frrn_b": Entry("frrn", "FRRN", "Pohlen et al. 2017, arXiv 1611.08323", {"variant": "B"}, 24.7),
    "icnet": Entry(
        "icnet",
        "ICNet",
        "Zhao et al. 2018, arXiv 1704.08545",
        {},
        26.5,
        remark="before half of all filters is pruned; branches part after a whole stage of the encoder",
    ),
    "bisenet": Entry(
        "bisenet",
        "BiSeNet",
        "Yu et al. 2018, arXiv 1808.00897",
        {},
        13.3,
        remark="as later papers count it; the paper's own 49.0 M can't be had from its description",
    ),
    "denseaspp": Entry("denseaspp", "DenseASPP", "Yang et al. 2018, CVPR", {}, 8.28),
    "duc_hdc": Entry(
        "duc_hdc",
        "DUCHDC",
        "Wang et al. 2018, arXiv 1702.08502",
        remark="the paper gives no figure; 64.9 M with its authors' cell of 2 px and 19 classes",
    ),
    "drn": Entry(
        "drn",
        "DRN",
        "Yu, Koltun & Funkhouser 2017, arXiv 1705.09914",
        {"variant": "D-22"},
        16.4,
        1000,
        remark="published for the 1000 classes of ImageNet",
    ),
    "mobileunet": Entry(
        "mobileunet",
        "MobileUNet",
        "Howard et al. 2017, arXiv 1704.04861, in a U",
        remark="the paper describes the convolutions; the U is common property",
    ),
}


def _smp(name: str, paper: str, encoder: str = "resnet18", **facts: Any) -> Entry:
    return Entry("smp", name, paper, {"encoder": encoder}, **facts)


# with the encoder that facts and tests take; each takes others
SMP: dict[str, Entry] = {
    "smp:DPT": _smp("DPT", "Ranftl et al. 2021, arXiv 2103.13413", "vit_tiny_patch16_224"),
    "smp:DeepLabV3": _smp("DeepLabV3", "Chen et al. 2017, arXiv 1706.05587"),
    "smp:DeepLabV3Plus": _smp("DeepLabV3Plus", "Chen et al. 2018, arXiv 1802.02611"),
    "smp:FPN": _smp("FPN", "Kirillov et al. 2019, arXiv 1901.02446"),
    "smp:Linknet": _smp("Linknet", "Chaurasia & Culurciello 2017, arXiv 1707.03718", published=11.5),
    "smp:MAnet": _smp("MAnet", "Fan et al. 2020, IEEE Access 8"),
    "smp:PAN": _smp("PAN", "Li et al. 2018, arXiv 1805.10180"),
    "smp:PSPNet": _smp("PSPNet", "Zhao et al. 2017, arXiv 1612.01105"),
    "smp:Segformer": _smp("Segformer", "Xie et al. 2021, arXiv 2105.15203"),
    "smp:UPerNet": _smp("UPerNet", "Xiao et al. 2018, arXiv 1807.10221"),
    "smp:Unet": _smp("Unet", "Ronneberger et al. 2015, arXiv 1505.04597"),
    "smp:UnetPlusPlus": _smp("UnetPlusPlus", "Zhou et al. 2018, arXiv 1807.10165"),
}
