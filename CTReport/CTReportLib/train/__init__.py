"""Training and evaluation of encoder, classifier and localizer on CT-RATE-like data.

What comes out is as good as the data that went in; labels read from reports are not the truth. No weights are shipped.
"""
