import pytest
import torch
from torchvision.ops import roi_align

from models.latent.boxes import Cells, box_cells, check_box, roi_region, token_region

GRIDS = torch.tensor([[5, 7], [12, 3], [8, 8], [20, 31]])
FEATURES = torch.randn(int(GRIDS.prod(1).sum()), 16, generator=torch.Generator().manual_seed(0))
IMAGES = torch.tensor([3, 0, 1, 2, 0])
BOXES = torch.tensor(
    [
        [0.0, 0.0, 1.0, 1.0],
        [0.3, 0.2, 0.62, 0.71],
        [0.05, 0.9, 0.95, 1.0],
        [0.5, 0.25, 0.51, 0.26],
        [0.7, 0.0, 1.0, 0.2],
    ],
    dtype=torch.float64,
)


def grid_of(image: int) -> torch.Tensor:
    sizes = GRIDS.prod(1).tolist()
    height, width = GRIDS[image].tolist()
    begin = sum(sizes[:image])
    return FEATURES[begin : begin + height * width].view(height, width, -1)


@pytest.mark.parametrize("bins", [1, 3, 8])
def test_roi_features_are_torchvisions(bins):
    cells = Cells.of(GRIDS, IMAGES)
    ours = roi_region(FEATURES, cells, BOXES, bins).features
    for at, image in enumerate(IMAGES.tolist()):
        grid = grid_of(image)
        height, width = grid.shape[:2]
        roi = BOXES[at].float() * torch.tensor([width, height, width, height])
        theirs = roi_align(grid.permute(2, 0, 1)[None], [roi[None]], bins, aligned=True)[0]
        torch.testing.assert_close(ours[at], theirs.flatten(1).T, atol=2e-5, rtol=1e-4)


def test_the_sampling_matrix_gives_the_features_and_keeps_the_maps_sum():
    cells = Cells.of(GRIDS, IMAGES)
    region = roi_region(FEATURES, cells, BOXES, 4)
    torch.testing.assert_close(region.weight.sum(-1), torch.ones(5, 16))
    assert not region.weight[~cells.mask[:, None].expand_as(region.weight)].any()
    torch.testing.assert_close(region.weight @ cells.gather(FEATURES), region.features)
    attention = torch.rand(5, 2, 16).softmax(-1)
    torch.testing.assert_close(region.spread(attention).sum(-1), torch.ones(5, 2))


def test_token_features_are_the_cells_under_the_box_in_raster_order():
    cells = Cells.of(GRIDS, IMAGES)
    inside = box_cells(BOXES, cells)
    region = token_region(FEATURES, cells, inside)
    for at, image in enumerate(IMAGES.tolist()):
        flat = grid_of(image).flatten(0, 1)
        chosen = inside[at].nonzero()[:, 0]
        n = len(chosen)
        assert torch.equal(region.features[at, :n], flat[chosen])
        assert region.mask[at].tolist() == [True] * n + [False] * (region.mask.shape[1] - n)
        attention = torch.rand(5, 2, region.mask.shape[1])
        spread = region.spread(attention)[at]
        assert torch.equal(spread[:, chosen], attention[at, :, :n]) and spread.count_nonzero() == 2 * n


@pytest.mark.parametrize(
    "box",
    [[0.5, 0.2, 0.5, 0.8], [0.6, 0.2, 0.5, 0.8], [0.1, 0.9, 0.5, 0.3], [float("nan"), 0, 1, 1], [0.1, 0.1, 0.2, -0.3]],
)
def test_an_empty_or_inverted_box_is_refused_by_name(box):
    with pytest.raises(ValueError, match="sample 7, box 1: box .* is empty or inverted"):
        check_box(box, "sample 7, box 1")
    boxes = BOXES.clone()
    boxes[3] = torch.tensor(box, dtype=torch.float64)
    with pytest.raises(ValueError, match="box 3 of the batch"):
        box_cells(boxes, Cells.of(GRIDS, IMAGES))


def test_a_box_outside_the_image_is_refused():
    with pytest.raises(ValueError, match="outside the image"):
        check_box([1.2, 0.0, 1.4, 0.5], "sample 7, box 0")
    with pytest.raises(ValueError, match="a box has 4 numbers"):
        check_box([0.0, 1.0], "sample 7, box 0")


def test_a_corner_on_a_cells_edge_does_not_reach_the_next_cell():
    cells = Cells.of(torch.tensor([[5, 5]]), torch.tensor([0]))
    box = torch.tensor([[0.2, 0.4, 0.6, 0.8]], dtype=torch.float64)
    assert box_cells(box, cells)[0].view(5, 5).nonzero().tolist() == [[2, 1], [2, 2], [3, 1], [3, 2]]
