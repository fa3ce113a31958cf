from dataclasses import replace

import pytest
import torch


def test_boxes_in_float32_are_refused_with_the_reason(padded):
    with pytest.raises(TypeError, match="in float32 a corner on a cell's edge moves by a token"):
        replace(padded, boxes=padded.boxes.float())


@pytest.mark.parametrize("name", ["labels", "position_ids", "attention_mask", "segment_start", "boxes"])
def test_a_tensor_of_another_shape_is_refused_by_name(name, padded):
    with pytest.raises(ValueError, match=f"{name} has shape .*, expected"):
        replace(padded, **{name: getattr(padded, name)[:0]})


def test_a_batch_needs_pixels_or_features_and_not_both(padded):
    with pytest.raises(ValueError, match="image_embeds or pixel_values"):
        replace(padded, image_embeds=None)
    with pytest.raises(ValueError, match="image_embeds or pixel_values"):
        replace(padded, pixel_values=torch.zeros(1))


def test_a_batch_counts_its_samples_and_moves_as_one(padded, packed):
    assert len(padded) == len(packed) == 3 and packed.packed and not padded.packed
    moved = padded.to("meta")
    assert (
        moved.boxes.dtype == torch.float64 and moved.input_ids.device.type == moved.image_embeds.device.type == "meta"
    )
    assert packed.to("meta").attention_mask is None
