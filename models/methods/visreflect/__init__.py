"""VisReflect, the related method: nothing is added to the model.

    spec         its two stages and their options
    crops        from a box to the pixels that the frozen tower sees once more
    clues        from spans of time to the frames that it sees once more
    method       the image stage
    video        the video stage
    reflection   where the crop's embeddings stand in a batch, and how far the states before them are from them

The method's `<BOR> <VR>…<VR> <EOR>` are `<|lvr_start|> <|lvr|>…<|lvr|> <|lvr_end|>` here: the same roles, and tokens that the
base model already has.
"""
