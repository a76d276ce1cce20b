"""One package a chapter: exercises, the experiments behind its claims, and what else it alone needs."""
