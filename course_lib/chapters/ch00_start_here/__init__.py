"""Chapter 0: what segmentation is, a trained network, and the way through the course."""
