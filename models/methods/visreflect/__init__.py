"""VisReflect, the related method, its image stage: nothing is added to the model.

    spec         its stage and options
    crops        from a box to the pixels that the frozen tower sees once more
    reflection   where the crop's embeddings stand in a batch, and how far the states before them are from them

The method's `<BOR> <VR>…<VR> <EOR>` are `<|lvr_start|> <|lvr|>…<|lvr|> <|lvr_end|>` here: the same roles, and tokens that the
base model already has. The video stage is not here: there are no videos in this project.
"""
