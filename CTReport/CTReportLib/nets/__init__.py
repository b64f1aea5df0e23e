"""Networks of the chest CT report: encoders and the heads on their features. Needs torch."""
