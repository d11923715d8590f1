"""What is known of the search space before any search, for samplers that draw around it.

Documented values for the architecture; standard practice for the training recipe, which the
documented network was never tried with; nothing where nothing is known. Each value has its source
beside it, and is older than this project, but for the dense layers after the convolutions: those
were chosen on validation images (`results/studies/prior`). No image of this project's test set had
a part in a value. That crops are worth a belief on these data is less innocent: those who measured
the data set saw on test images that they help.
"""

from __future__ import annotations

from typing import Any

from hypermodels.configuration import DOCUMENTED

_FIRM, _LOOSE = 0.25, 0.5
"""Spreads as a share of the range: PriorBand's (Mallik et al., NeurIPS 2023), and twice that."""

PRIOR: dict[str, tuple[Any, float]] = {
    "base_filters": (DOCUMENTED.base_filters, _FIRM),
    "separable": (DOCUMENTED.separable, _FIRM),
    "activation": (DOCUMENTED.activation, _FIRM),
    "batch_norm": (DOCUMENTED.batch_norm, _FIRM),
    "conv_dropout": (DOCUMENTED.conv_dropout, _LOOSE),
    # One layer instead of the documented three: results/studies/prior.
    "dense_layers": (1, _LOOSE),
    "dense_units_1": (128, _LOOSE),
    "dense_dropout_1": (0.3, _LOOSE),
    # Variance-preserving: He et al., ICCV 2015.
    "initializer": ("scaled", _FIRM),
    # Random resized crops from 8% of the area: Szegedy et al., CVPR 2015; the default of
    # torchvision's RandomResizedCrop, with which ImageNet networks are trained.
    "crop_min_area": (0.08, _FIRM),
    # Adam's default: Kingma and Ba, ICLR 2015.
    "learning_rate": (1e-3, _FIRM),
    # Half a cosine: Loshchilov and Hutter, ICLR 2017.
    "schedule": ("cosine", _FIRM),
    # Decoupled decay: Loshchilov and Hutter, ICLR 2019; 0.01 is PyTorch's default for AdamW.
    "weight_decay": (1e-2, _FIRM),
    # Averaged weights: Polyak and Juditsky, 1992; decay as in Szegedy et al., CVPR 2016 (0.9999),
    # for trainings of thousands, not millions, of steps.
    "ema": (0.999, _FIRM),
}
"""Value and spread by hyperparameter: see `search.tuning.space.Belief`."""
