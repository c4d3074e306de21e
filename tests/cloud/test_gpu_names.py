"""The GPUs that a recipe may name are those that a price is known of."""

from __future__ import annotations

from cloud.cost import RATES
from gx.core.terms import GPUS


def test_each_gpu_that_a_recipe_may_name_has_a_price_and_no_other_has() -> None:
    assert set(GPUS) == set(RATES) and len(GPUS) == len(RATES)
