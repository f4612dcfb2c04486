"""The plain loop of `models/rssm.py` by hand: fewer and larger matrix products, the same result up to rounding.

`scan.py` takes the steps, `backward.py` differentiates them, `draws.py` is how each latent is drawn there, and
`gru.py` puts a model's layers in. `fast: true` in the model's config switches it on.
"""
