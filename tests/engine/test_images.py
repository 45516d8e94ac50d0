"""Requests that carry images: what SGLang holds of them follows their rows.

No vision model runs here: the fake model looks at the rows of `ScheduleBatch.multimodal_inputs`,
which SGLang hands to the model.
"""

from __future__ import annotations

from typing import Any

import pytest
from sglang.srt.managers.schedule_batch import MultimodalInputs

from engine.fake_model import FakeModel
from engine.random_load import Load, run_random_load
from engine.real_loop import RealLoop
from engine.real_scheduler import Setup
from engine.test_pause import MODES

pytestmark = pytest.mark.engine


@pytest.mark.parametrize(("speculative", "overlap"), MODES)
def test_images_follow_their_requests(
    speculative: bool, overlap: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, forward = RealLoop.submit, FakeModel.forward_batch_generation

    def submit_with_image(loop: RealLoop, rid: str, *args: Any, **kw: Any) -> Any:
        req = submit(loop, rid, *args, **kw)
        if int(rid[1:]) % 2:
            req.multimodal_inputs = MultimodalInputs(mm_items=[])
        return req

    def check_and_forward(model: FakeModel, batch: Any, *args: Any, **kw: Any) -> Any:
        assert len(batch.multimodal_inputs) == len(batch.reqs)
        for req, image in zip(batch.reqs, batch.multimodal_inputs, strict=True):
            assert image is req.multimodal_inputs, f"{req.rid} has the image of another request"
        return forward(model, batch, *args, **kw)

    monkeypatch.setattr(RealLoop, "submit", submit_with_image)
    monkeypatch.setattr(FakeModel, "forward_batch_generation", check_and_forward)
    counters = run_random_load(
        Setup(speculative, overlap, slots=12, kv_tokens=230),
        Load(seed=0, requests=12, tokens=(30, 70), longest_prompt=20, scarce_memory=True),
    )
    assert counters["pauses"] > 60
    assert counters["demotions"] > 20
