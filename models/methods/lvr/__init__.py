"""LVR, latent visual reasoning by reconstruction: the slots hold the picture's own merged tokens under the box, and the
state before each is drawn towards it.

    spec      the supervised stage's options
    modules   the optional heads and the end vector
    method    the forward pass
"""
