"""Does this implementation compute what the authors' releases compute? `python -m models.parity DIR` prints a table.

    reference    a folder of reference tensors: what it holds, which of it a check has read, the tiny model it is about
    vreflection  one format a module, with its checks
    reduce       the small subset of a folder that the tests carry

A folder is recognised by what its files hold, not by their names. Its checks run this project's own code (training forward,
rollout, decoding, template, answer reader) on the folder's weights and inputs, in fp32. Each is a maximum difference
relative to the largest reference value: outputs and losses must agree to 1e-5, gradients to 1e-4. What the folder holds
and no check reads is named with the reason and counted; a tensor for which there is no reason is a failure.
"""

from models.parity.formats import open_reference
from models.parity.reference import Check, Reference, Unknown

__all__ = ["Check", "Reference", "Unknown", "open_reference"]
