"""Training of a front end on a labelled dataset: config -> data -> loop -> weights with a model card.

Everything random is drawn from (seed, step), so a training that was killed goes on from its checkpoint as if nothing
had happened.
"""
