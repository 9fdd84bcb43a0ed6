"""Reading the residual stream: the logit lens, linear probes, and attention knock-out."""
