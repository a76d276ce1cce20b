"""Chapter 12: pretrained encoders, and what came after Mask R-CNN."""
